/* cmd_devices.c: what the machine does, as the daemon sees it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "commands.h"

static const struct ctl_option options[] = {
	CTL_OPTION_JSON,
	{ NULL },
};

static double gib(const json_t *o, const char *key)
{
	return ctl_real(o, key) / (1 << 30);
}

static void add_of(struct ctl_table *t, double used, double total, const char *unit)
{
	if (isnan(used) || isnan(total))
		ctl_table_add(t, "-");
	else
		ctl_table_addf(t, "%.1f of %.1f %s", used, total, unit);
}

static void add_number(struct ctl_table *t, double v, const char *unit)
{
	if (isnan(v))
		ctl_table_add(t, "-");
	else
		ctl_table_addf(t, "%.0f %s", v, unit);
}

static void add_host(struct ctl_table *t, const json_t *host)
{
	ctl_table_add(t, "cpu");
	ctl_table_addf(t, "%" PRId64 " x %s", ctl_int(host, "cpus"),
		       ctl_has(host, "cpu") ? ctl_safe(host, "cpu") : "CPU");
	add_of(t, gib(host, "memory_used_bytes"), gib(host, "memory_total_bytes"), "GiB");
	add_number(t, ctl_real(host, "utilisation") * 100, "%");
	ctl_table_add(t, "-");
	ctl_table_add(t, "-");
}

static void add_gpu(struct ctl_table *t, const json_t *gpu)
{
	ctl_table_addf(t, "gpu %" PRId64, ctl_int(gpu, "index"));
	ctl_table_add(t, ctl_has(gpu, "name") ? ctl_safe(gpu, "name") : "-");
	add_of(t, gib(gpu, "memory_used_bytes"), gib(gpu, "memory_total_bytes"), "GiB");
	add_number(t, ctl_real(gpu, "utilisation") * 100, "%");
	add_of(t, ctl_real(gpu, "power_watts"), ctl_real(gpu, "power_limit_watts"), "W");
	add_number(t, ctl_real(gpu, "temperature_celsius"), "C");
}

static void print_table(const json_t *r)
{
	static const char *const heads[] = { "DEVICE", "NAME", "MEMORY", "USED", "POWER",
					     "TEMPERATURE" };
	struct ctl_table *t = ctl_table_new(6, heads);
	json_t *gpu;
	size_t i;

	add_host(t, json_object_get(r, "host"));
	json_array_foreach (json_object_get(r, "gpus"), i, gpu)
		add_gpu(t, gpu);
	ctl_table_print_take(t);
}

static void print_worker(const json_t *w)
{
	printf("job %" PRId64 " (%s), pid %" PRId64 ":", ctl_int(w, "job"), ctl_safe(w, "name"),
	       ctl_int(w, "pid"));
	if (ctl_has(w, "host_bytes"))
		printf(" %.2f GiB of RAM", gib(w, "host_bytes"));
	if (ctl_has(w, "gpu_bytes"))
		printf(" %.2f GiB of GPU memory", gib(w, "gpu_bytes"));
	puts("");
}

static int run(struct ctl *c)
{
	const json_t *host;
	json_t *r, *w;
	size_t i;
	int rc;

	r = ctl_ask(c, "daemon.devices", json_object(), &rc);
	if (!r)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(r);
	host = json_object_get(r, "host");
	print_table(r);
	json_array_foreach (json_object_get(r, "workers"), i, w)
		print_worker(w);
	if (ctl_has(host, "disk_free_bytes"))
		printf("disk: %.1f of %.1f GiB free\n", gib(host, "disk_free_bytes"),
		       gib(host, "disk_total_bytes"));
	if (ctl_has(r, "why_no_gpus"))
		printf("GPU: %s\n", ctl_safe(r, "why_no_gpus"));
	json_decref(r);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_devices = {
	"devices", "",
	"Tell what CPU, memory, disk and GPUs do, and what jobs take of them.\n"
	"USED is the share of the time: of the CPUs since somebody asked before, of a GPU\n"
	"that in which any kernel ran.",
	"  lhctl devices\n  watch -n 2 lhctl devices\n  lhctl devices --json\n", 0, 0, options,
	run };
