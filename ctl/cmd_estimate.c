/* cmd_estimate.c: bytes and time of a job, by arithmetic: no daemon, no GPU. Times
 * are known of GPUs only: there is no chip for a job on the CPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"
#include "jobs/jobfile.h"
#include "scale.h"

enum { FILE_MAX_BYTES = 1000000 };

static const struct ctl_option options[] = {
	{ "set", 0, "KEY=VALUE", true, "override a key, as in recompute=layer" },
	{ "gpu", 0, "NAME", false, "h100 or h200 (h100); not with device: cpu" },
	{ "memory", 0, "GIB", false, "of the device, instead of the GPU's or machine's own" },
	{ "devices", 0, "N", false, "a row for each phase on 1, 2, 4 ... N of them" },
	{ "host", 0, "N", false, "devices that are in one host, by NVLink (8)" },
	{ "network", 0, "GB/S", false, "what a host sends to others, all its cards together "
	  "(50)" },
	{ "json", 0, NULL, false, "as data" },
	{ NULL },
};

static json_t *bytes_json(const struct lh_layout_bytes *b)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "state", (json_int_t)b->state,
			 "kept", (json_int_t)b->kept, "scratch", (json_int_t)b->scratch,
			 "loss", (json_int_t)b->loss, "device", (json_int_t)b->device,
			 "total", (json_int_t)b->total);
}

static int print_json(const struct lh_job *job, const struct lh_estimate *e)
{
	json_t *phases = json_array();
	double tokens = (double)(job->batch.sequences * job->data.seq_len);

	for (int i = 0; i < job->phase_count; i++) {
		const struct lh_estimate_phase *p = &e->phase[i];

		bool timed = p->step_s > 0;

		json_array_append_new(
			phases,
			json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:o}", "name",
				  job->phases[i].name, "recompute",
				  lh_recompute_name(p->recompute), "bytes",
				  bytes_json(&p->bytes), "step_s",
				  timed ? json_real(p->step_s) : json_null(),
				  "exchange_s",
				  timed ? json_real(p->exchange_s) : json_null(),
				  "tokens_per_s",
				  timed ? json_real(tokens / p->step_s) : json_null(),
				  "deterministic_bytes",
				  (json_int_t)p->deterministic_bytes, "deterministic_s",
				  timed ? json_real(p->deterministic_s) : json_null()));
	}
	return ctl_print_json_take(
		json_pack("{s:s, s:I, s:I, s:o}", "name", job->name, "params",
			  (json_int_t)lh_job_model_params(&job->model), "bytes",
			  (json_int_t)e->bytes, "phases", phases));
}

static void print_text(const struct lh_job *job, const struct lh_estimate *e,
		       const struct lh_chip *chip)
{
	double tokens = (double)(job->batch.sequences * job->data.seq_len), G = 1 << 30;
	char safe[300], time[80], each[80] = "";
	int used = 0;

	if (job->devices > 1)
		used = snprintf(each, sizeof(each), " on each of %d devices", job->devices);
	if (job->context > 1)
		snprintf(each + used, sizeof(each) - (size_t)used, ", %d of which share a "
			 "sequence", job->context);
	printf("'%s' on %s: %.1f M parameters, %.2f GiB at most%s\n",
	       lh_escape(safe, sizeof(safe), job->name), chip ? chip->name : "the CPU",
	       (double)lh_job_model_params(&job->model) / 1e6, (double)e->bytes / G, each);
	for (int i = 0; i < job->phase_count; i++) {
		const struct lh_estimate_phase *p = &e->phase[i];
		const struct lh_layout_bytes *b = &p->bytes;

		snprintf(time, sizeof(time), ", %.3g s a step, %.0f tokens/s", p->step_s,
			 tokens / p->step_s);
		printf("phase '%s': recompute %s, %.2f GiB%s\n",
		       lh_escape(safe, sizeof(safe), job->phases[i].name),
		       lh_recompute_name(p->recompute), (double)b->total / G,
		       chip ? time : "");
		printf("  GiB: weights and optimizer %.2f, kept for backward %.2f, scratch "
		       "%.2f, logits %.2f, device %.2f\n", (double)b->state / G,
		       (double)b->kept / G, (double)b->scratch / G, (double)b->loss / G,
		       (double)b->device / G);
		if (chip && job->devices > 1)
			printf("  of a step, waiting for what devices hand each other: %.3g s\n",
			       p->exchange_s);
		if (job->deterministic)
			printf("  of them for deterministic: %.2f GiB, %.3g s a step\n",
			       (double)p->deterministic_bytes / G, p->deterministic_s);
	}
}

/* Options that are of GPUs alone. */
static int refuse_gpu_options(const struct ctl *c)
{
	static const char *const names[] = { "gpu", "devices", "host", "network" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (ctl_opt(c, names[i]))
			return ctl_usage(c->command, "--%s makes no sense with device: cpu",
					 names[i]);
	return CTL_DONE;
}

static int scale(const struct ctl *c, const struct lh_job *job, const struct lh_chip *chip,
		 int64_t memory_bytes)
{
	int devices = (int)ctl_opt_int(c, "devices", 1, 1, 65536);
	struct lh_err err = LH_ERR_INIT;
	struct ctl_scale s;

	if (ctl_scale_measure(&s, job, chip, memory_bytes, devices, &err))
		return ctl_fail(&err);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(ctl_scale_json(&s, job));
	ctl_scale_print(&s, job, devices);
	return CTL_DONE;
}

/* The GPU that is named, with links as the options have them; false: not known. */
static bool find_chip(const struct ctl *c, struct lh_chip *chip)
{
	const char *name = ctl_opt(c, "gpu");
	const struct lh_chip *known = lh_chip_find(name ? name : "h100");

	if (!known)
		return false;
	*chip = *known;
	chip->host_devices = (int)ctl_opt_int(c, "host", chip->host_devices, 1, 1024);
	chip->network_bytes_per_s = 1e9 * ctl_opt_number(c, "network",
							 chip->network_bytes_per_s / 1e9,
							 0.01, 100000);
	return true;
}

static int estimate(const struct ctl *c, const struct lh_job *job)
{
	bool cpu = job->device == LH_DEVICE_CPU;
	double gib = ctl_opt_number(c, "memory", 0, 0.001, 1e6);
	struct lh_err err = LH_ERR_INIT;
	struct lh_chip chip;
	struct lh_estimate e;
	int64_t memory;

	if (cpu && refuse_gpu_options(c))
		return CTL_USAGE;
	if (!cpu && !find_chip(c, &chip))
		return ctl_usage(c->command, "'%s' is not known; there are %s",
				 ctl_opt(c, "gpu"), lh_chip_names());
	memory = gib > 0 ? (int64_t)(gib * (1 << 30)) :
		 cpu ? lh_host_memory_bytes() / (*job->join ? 1 : job->devices) : chip.memory_bytes;
	if (!cpu)
		memory = lh_chip_usable_bytes(memory);
	if (ctl_opt(c, "devices"))
		return scale(c, job, &chip, memory);
	if (lh_estimate_job(&e, job, cpu ? &lh_sizes_cpu : &lh_sizes_cuda, cpu ? NULL : &chip,
			    memory, &err))
		return ctl_fail(&err);
	if (ctl_opt(c, "json"))
		return print_json(job, &e);
	print_text(job, &e, cpu ? NULL : &chip);
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	char *text, *dir = ctl_directory_of(c->args[0]);
	struct lh_jobfile_source src = { .file = c->args[0], .base_dir = dir,
					 .set = (const char *const *)c->repeated,
					 .set_count = c->repeated_count,
					 .without_data = true };
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };
	int rc;

	if (lh_fs_read(c->args[0], FILE_MAX_BYTES, &text, &src.yaml_bytes, &err)) {
		free(dir);
		lh_err_hint(&err, "ctl/examples/demo.yaml is a job file to start from");
		return ctl_fail(&err);
	}
	src.yaml = text;
	if (lh_jobfile_load(&job, &src, &err))
		rc = ctl_fail(&err);
	else
		rc = estimate(c, &job);
	lh_job_release(&job);
	free(text);
	free(dir);
	return rc;
}

const struct ctl_command ctl_cmd_estimate = {
	"estimate", "JOB.yaml",
	"Print what a job would need on a GPU, and how fast it would run; with\n"
	"device: cpu what it would need of this machine's memory.\n"
	"By arithmetic alone: needs no daemon, no GPU and none of the data files. What\n"
	"is printed for memory is what the worker will ask for. With --devices the job stays\n"
	"as it is, so a device has the less of its batch the more there are; numbers that do\n"
	"not divide the batch are left out. OF LINEAR compares with the first row.",
	"  lhctl estimate job.yaml\n"
	"  lhctl estimate job.yaml --gpu h200 --set data.seq_len=524288\n"
	"  lhctl estimate job.yaml --devices 256 --set batch.sequences=256 --network 400\n",
	1, 1, options, run };
