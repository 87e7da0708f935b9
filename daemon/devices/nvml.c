/* nvml.c: see nvml.h. Only functions and structures that NVML has frozen under these
 * names are used, so its header is not needed. */
#include "devices/nvml.h"

#include <dlfcn.h>
#include <stddef.h>

enum { OK = 0, TEMPERATURE_OF_GPU = 0, MAX_PROCESSES = 128, NAME_BYTES = 96 };

struct device; /* NVML's own */

struct memory {
	unsigned long long total, free, used;
};

struct utilisation {
	unsigned gpu, memory; /* per cent */
};

struct process {
	unsigned pid;
	unsigned long long used_bytes; /* all ones: not told */
	unsigned gpu_instance, compute_instance;
};

static struct {
	int (*init)(void);
	const char *(*error)(int rc);
	int (*count)(unsigned *count);
	int (*handle)(unsigned index, struct device **d);
	int (*name)(struct device *d, char *out, unsigned bytes);
	int (*uuid)(struct device *d, char *out, unsigned bytes);
	int (*memory)(struct device *d, struct memory *out);
	int (*utilisation)(struct device *d, struct utilisation *out);
	int (*power)(struct device *d, unsigned *mw);
	int (*power_limit)(struct device *d, unsigned *mw);
	int (*temperature)(struct device *d, int sensor, unsigned *celsius);
	int (*processes)(struct device *d, unsigned *count, struct process *out);
} nvml;

static const struct {
	const char *name;
	void *slot;
} functions[] = {
	{ "nvmlInit_v2", &nvml.init },
	{ "nvmlErrorString", &nvml.error },
	{ "nvmlDeviceGetCount_v2", &nvml.count },
	{ "nvmlDeviceGetHandleByIndex_v2", &nvml.handle },
	{ "nvmlDeviceGetName", &nvml.name },
	{ "nvmlDeviceGetUUID", &nvml.uuid },
	{ "nvmlDeviceGetMemoryInfo", &nvml.memory },
	{ "nvmlDeviceGetUtilizationRates", &nvml.utilisation },
	{ "nvmlDeviceGetPowerUsage", &nvml.power },
	{ "nvmlDeviceGetEnforcedPowerLimit", &nvml.power_limit },
	{ "nvmlDeviceGetTemperature", &nvml.temperature },
	{ "nvmlDeviceGetComputeRunningProcesses_v3", &nvml.processes },
};

static int refuse(struct lh_err *err, const char *doing, int rc)
{
	return lh_err_set(err, LH_EUNSUPPORTED, "NVIDIA's driver does not %s: %s", doing,
			  nvml.error(rc));
}

int lh_nvml_open(struct lh_err *err)
{
	void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
	int rc;

	if (!library) {
		lh_err_set(err, LH_EUNSUPPORTED, "there is no NVIDIA driver here: %s", dlerror());
		return err->code;
	}
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		void *f = dlsym(library, functions[i].name);

		if (!f) {
			lh_err_set(err, LH_EUNSUPPORTED, "NVIDIA's driver is too old: its "
				   "libnvidia-ml.so.1 has no %s", functions[i].name);
			return lh_err_hint(err, "CUDA 13 needs driver 580 or newer");
		}
		*(void **)functions[i].slot = f;
	}
	rc = nvml.init();
	return rc == OK ? 0 : refuse(err, "start", rc);
}

/* ---- one reading ----------------------------------------------------------- */

static json_t *text_or_null(int rc, const char *text)
{
	json_t *v = rc == OK ? json_string(text) : NULL;

	return v ? v : json_null();
}

static json_t *integer_or_null(int rc, unsigned long long v)
{
	return rc == OK ? json_integer((json_int_t)v) : json_null();
}

static json_t *real_or_null(int rc, double v)
{
	return rc == OK ? json_real(v) : json_null();
}

static json_t *processes_of(struct device *d)
{
	struct process of[MAX_PROCESSES];
	unsigned n = MAX_PROCESSES;
	json_t *list = json_array();

	if (nvml.processes(d, &n, of) != OK)
		return list;
	for (unsigned i = 0; i < n; i++)
		if (of[i].used_bytes != ~0ULL)
			json_array_append_new(list, json_pack("{s:I, s:I}", "pid",
							      (json_int_t)of[i].pid, "bytes",
							      (json_int_t)of[i].used_bytes));
	return list;
}

static void put_memory(json_t *gpu, struct device *d)
{
	struct memory m = { 0 };
	int rc = nvml.memory(d, &m);

	json_object_set_new(gpu, "memory_used_bytes", integer_or_null(rc, m.used));
	json_object_set_new(gpu, "memory_total_bytes", integer_or_null(rc, m.total));
}

static void put_power(json_t *gpu, struct device *d)
{
	unsigned mw = 0;
	int rc = nvml.power(d, &mw);

	json_object_set_new(gpu, "power_watts", real_or_null(rc, mw / 1e3));
	rc = nvml.power_limit(d, &mw);
	json_object_set_new(gpu, "power_limit_watts", real_or_null(rc, mw / 1e3));
}

static json_t *read_gpu(unsigned index, struct device *d)
{
	json_t *gpu = json_pack("{s:i}", "index", (int)index);
	char text[NAME_BYTES];
	struct utilisation u = { 0 };
	unsigned celsius = 0;
	int rc = nvml.name(d, text, sizeof(text));

	json_object_set_new(gpu, "name", text_or_null(rc, text));
	rc = nvml.uuid(d, text, sizeof(text));
	json_object_set_new(gpu, "uuid", text_or_null(rc, text));
	put_memory(gpu, d);
	rc = nvml.utilisation(d, &u);
	json_object_set_new(gpu, "utilisation", real_or_null(rc, u.gpu / 1e2));
	put_power(gpu, d);
	rc = nvml.temperature(d, TEMPERATURE_OF_GPU, &celsius);
	json_object_set_new(gpu, "temperature_celsius", integer_or_null(rc, celsius));
	json_object_set_new(gpu, "processes", processes_of(d));
	return gpu;
}

json_t *lh_nvml_read(struct lh_err *err)
{
	json_t *list;
	unsigned n;
	int rc = nvml.count(&n);

	if (rc != OK) {
		refuse(err, "count its GPUs", rc);
		return NULL;
	}
	list = json_array();
	for (unsigned i = 0; i < n; i++) {
		struct device *d;

		/* One that fell off the bus is passed over, the others are there. */
		if (nvml.handle(i, &d) == OK)
			json_array_append_new(list, read_gpu(i, d));
	}
	return list;
}
