/* stub_nvml.c: a libnvidia-ml.so.1 without a GPU, for tests of what surrounds it.
 *
 * LH_STUB_NVML says what it does: nothing special; "fails" when it starts; "gone": it
 * starts and then fails; "partly": of its second GPU it tells the name alone; "hangs" in
 * a reading; "crashes" in one. The process LH_STUB_PID (0) takes 3 GiB of the first. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

struct memory {
	unsigned long long total, free, used;
};

struct utilisation {
	unsigned gpu, memory;
};

struct process {
	unsigned pid;
	unsigned long long used_bytes;
	unsigned gpu_instance, compute_instance;
};

int nvmlInit_v2(void);
const char *nvmlErrorString(int rc);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **d);
int nvmlDeviceGetName(void *d, char *out, unsigned bytes);
int nvmlDeviceGetUUID(void *d, char *out, unsigned bytes);
int nvmlDeviceGetMemoryInfo(void *d, struct memory *out);
int nvmlDeviceGetUtilizationRates(void *d, struct utilisation *out);
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw);
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *mw);
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *celsius);
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, struct process *out);

static char gpus[2];

static int told(const char *what)
{
	const char *text = getenv("LH_STUB_NVML");

	return text && !strcmp(text, what);
}

/* Of the second GPU, where the driver tells only a part. */
static int rc_of(void *d)
{
	return d == &gpus[1] && told("partly") ? NOT_SUPPORTED : OK;
}

int nvmlInit_v2(void)
{
	return told("fails") ? DRIVER_NOT_LOADED : OK;
}

const char *nvmlErrorString(int rc)
{
	return rc == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "GPU is lost";
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
	if (told("hangs"))
		for (;;)
			pause();
	if (told("crashes"))
		raise(SIGKILL);
	*count = 2;
	return told("gone") ? GPU_IS_LOST : OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **d)
{
	*d = &gpus[index];
	return OK;
}

int nvmlDeviceGetName(void *d, char *out, unsigned bytes)
{
	snprintf(out, bytes, "NVIDIA Stub %d", d == &gpus[1]);
	return OK;
}

int nvmlDeviceGetUUID(void *d, char *out, unsigned bytes)
{
	snprintf(out, bytes, "GPU-%d", d == &gpus[1]);
	return rc_of(d);
}

int nvmlDeviceGetMemoryInfo(void *d, struct memory *out)
{
	*out = (struct memory){ 80ULL << 30, 70ULL << 30, 10ULL << 30 };
	return rc_of(d);
}

int nvmlDeviceGetUtilizationRates(void *d, struct utilisation *out)
{
	*out = (struct utilisation){ 97, 40 };
	return rc_of(d);
}

int nvmlDeviceGetPowerUsage(void *d, unsigned *mw)
{
	*mw = 512345;
	return rc_of(d);
}

int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *mw)
{
	*mw = 700000;
	return rc_of(d);
}

int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *celsius)
{
	*celsius = 61;
	return sensor ? NOT_SUPPORTED : rc_of(d);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, struct process *out)
{
	const char *pid = getenv("LH_STUB_PID");

	*count = 1;
	out[0] = (struct process){ (unsigned)(pid ? atoi(pid) : 0), 3ULL << 30, 0, 0 };
	return d == &gpus[1] ? NOT_SUPPORTED : OK;
}
