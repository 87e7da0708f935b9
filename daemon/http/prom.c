/* prom.c: see prom.h. */
#include "http/prom.h"

#include <inttypes.h>
#include <string.h>

#include "jobs/job.h"

struct metric {
	const char *name, *type, *help;
	const char *key;
	double scale;     /* of the number, to the unit of the name */
	bool nan;         /* null is NaN */
};

static const struct metric of_daemon[] = {
	{ "lighthouse_start_time_seconds", "gauge", "When this lhd started, Unix time.",
	  "started_ms", 1e-3, false },
	{ "lighthouse_queue_length", "gauge", "Jobs that wait for a slot.", "queued", 1, false },
	{ "lighthouse_workers", "gauge", "Workers that are connected.", "workers", 1, false },
	{ "lighthouse_control_clients", "gauge", "Connections to the control socket.",
	  "clients", 1, false },
	{ "lighthouse_page_connections", "gauge", "Connections to the page's server.",
	  "connections", 1, false },
	{ "lighthouse_page_streams", "gauge", "Event streams that are open.", "streams", 1,
	  false },
	{ "lighthouse_database_up", "gauge", "0 while the database takes no writes.",
	  "database_up", 1, false },
	{ "lighthouse_database_pending_writes", "gauge", "Writes that are not committed yet.",
	  "backlog", 1, false },
	{ "lighthouse_database_size_bytes", "gauge", "Size of the database.", "database_bytes",
	  1, false },
};

static const struct metric of_host[] = {
	{ "lighthouse_cpu_utilisation_ratio", "gauge",
	  "Share of the CPUs' time that was used since they were last asked.", "utilisation", 1,
	  false },
	{ "lighthouse_cpu_load", "gauge", "Load average of one minute.", "load", 1, false },
	{ "lighthouse_host_memory_used_bytes", "gauge", "RAM that a new process could not have.",
	  "memory_used_bytes", 1, false },
	{ "lighthouse_host_memory_total_bytes", "gauge", "RAM.", "memory_total_bytes", 1, false },
	{ "lighthouse_disk_free_bytes", "gauge",
	  "Free on the disk of the state directory, for lhd.", "disk_free_bytes", 1, false },
	{ "lighthouse_disk_total_bytes", "gauge", "Size of the disk of the state directory.",
	  "disk_total_bytes", 1, false },
};

static const struct metric of_gpus[] = {
	{ "lighthouse_gpu_memory_used_bytes", "gauge", "GPU memory in use, by whomever.",
	  "memory_used_bytes", 1, false },
	{ "lighthouse_gpu_memory_total_bytes", "gauge", "GPU memory.", "memory_total_bytes", 1,
	  false },
	{ "lighthouse_gpu_utilisation_ratio", "gauge",
	  "Share of the time in which any kernel ran.", "utilisation", 1, false },
	{ "lighthouse_gpu_power_watts", "gauge", "Power that the GPU draws.", "power_watts", 1,
	  false },
	{ "lighthouse_gpu_power_limit_watts", "gauge", "Power that the GPU may draw.",
	  "power_limit_watts", 1, false },
	{ "lighthouse_gpu_temperature_celsius", "gauge", "Temperature of the chip.",
	  "temperature_celsius", 1, false },
};

static const struct metric of_jobs[] = {
	{ "lighthouse_job_step", "gauge", "Optimizer steps completed.", "step", 1, false },
	{ "lighthouse_job_planned_steps", "gauge", "Optimizer steps planned, where known.",
	  "total_steps", 1, false },
	{ "lighthouse_job_phase", "gauge", "Index of the current phase.", "phase", 1, false },
	{ "lighthouse_job_loss_nats_per_token", "gauge",
	  "Training loss of the newest step; NaN if it is not finite or not known.", "loss", 1,
	  true },
	{ "lighthouse_job_tokens_per_second", "gauge", "Tokens a second of the newest step.",
	  "tokens_per_s", 1, false },
	{ "lighthouse_job_remaining_seconds", "gauge", "Time left at the present pace.",
	  "eta_s", 1, false },
	{ "lighthouse_job_attempt", "gauge", "Newest attempt.", "attempt", 1, false },
	{ "lighthouse_job_last_step_timestamp_seconds", "gauge",
	  "When the newest stored step was done, Unix time.", "last_step_ms", 1e-3, false },
	{ "lighthouse_job_last_checkpoint_timestamp_seconds", "gauge",
	  "When the newest checkpoint was written, Unix time.", "last_checkpoint_ms", 1e-3,
	  false },
	{ "lighthouse_job_checkpoints_total", "counter", "Checkpoints written.", "checkpoints",
	  1, false },
	{ "lighthouse_worker_memory_bytes", "gauge", "RAM that the job's worker has.",
	  "host_bytes", 1, false },
	{ "lighthouse_worker_gpu_memory_bytes", "gauge",
	  "GPU memory that the job's worker has, where the driver tells.", "gpu_bytes", 1,
	  false },
	{ "lighthouse_worker_restarts_total", "counter", "Workers started after the first one.",
	  "later_attempts", 1, false },
};

static void put_head(struct lh_buf *out, const char *name, const char *type,
		     const char *help)
{
	lh_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Inside its quotes. */
static void put_escaped(struct lh_buf *out, const char *text)
{
	for (; *text; text++)
		if (*text == '\n')
			lh_buf_append(out, "\\n", 2);
		else
			lh_buf_printf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c",
				      *text);
}

static const char *text_of(const json_t *from, const char *key)
{
	const char *text = json_string_value(json_object_get(from, key));

	return text ? text : "";
}

static void put_job_labels(struct lh_buf *out, const char *name, const json_t *job)
{
	lh_buf_printf(out, "%s{job_id=\"%" JSON_INTEGER_FORMAT "\",name=\"", name,
		      json_integer_value(json_object_get(job, "job")));
	put_escaped(out, text_of(job, "name"));
	lh_buf_append(out, "\"", 1);
}

/* Times are to the millisecond, all else is as exact as it came. */
static void put_value(struct lh_buf *out, const struct metric *m, const json_t *v)
{
	lh_buf_printf(out, m->scale < 1 ? " %.3f\n" : " %.17g\n",
		      json_number_value(v) * m->scale);
}

static void put_gpu_labels(struct lh_buf *out, const char *name, const json_t *gpu)
{
	lh_buf_printf(out, "%s{gpu=\"%" JSON_INTEGER_FORMAT "\",uuid=\"", name,
		      json_integer_value(json_object_get(gpu, "index")));
	put_escaped(out, text_of(gpu, "uuid"));
	lh_buf_printf(out, "\",model=\"");
	put_escaped(out, text_of(gpu, "name"));
	lh_buf_append(out, "\"", 1);
}

/* One without labels. */
static void put_single(struct lh_buf *out, const struct metric *m, const json_t *from)
{
	const json_t *v = json_object_get(from, m->key);

	if (!json_is_number(v))
		return;
	put_head(out, m->name, m->type, m->help);
	lh_buf_printf(out, "%s", m->name);
	put_value(out, m, v);
}

/* One of each row, with its labels. */
static void put_rows(struct lh_buf *out, const struct metric *m, const json_t *rows,
		     void (*put_labels)(struct lh_buf *out, const char *name, const json_t *row))
{
	const json_t *row, *v;
	size_t i;

	put_head(out, m->name, m->type, m->help);
	json_array_foreach (rows, i, row) {
		v = json_object_get(row, m->key);
		if (!json_is_number(v) && !m->nan)
			continue;
		put_labels(out, m->name, row);
		lh_buf_append(out, "}", 1);
		if (json_is_number(v))
			put_value(out, m, v);
		else
			lh_buf_printf(out, " NaN\n");
	}
}

/* One of each job's is 1. */
static void put_states(struct lh_buf *out, const json_t *jobs)
{
	const json_t *job;
	size_t i;

	put_head(out, "lighthouse_job_state", "gauge", "1 for the state that the job is in.");
	json_array_foreach (jobs, i, job)
		for (int s = 0; s <= LH_JOB_CANCELLED; s++) {
			const char *name = lh_job_state_name((enum lh_job_state)s);

			put_job_labels(out, "lighthouse_job_state", job);
			lh_buf_printf(out, ",state=\"%s\"} %d\n", name,
				      !strcmp(name, text_of(job, "state")));
		}
}

/* With full attention, of each validation set; NaN if it is not finite. */
static void put_validation(struct lh_buf *out, const json_t *jobs)
{
	static const char name[] = "lighthouse_job_validation_loss_nats_per_token";
	const json_t *job, *set, *loss;
	size_t i, s;

	put_head(out, name, "gauge", "Newest validation loss with full attention, by set; "
				     "NaN if it is not finite.");
	json_array_foreach (jobs, i, job)
		json_array_foreach (json_object_get(job, "validation"), s, set) {
			loss = json_object_get(set, "loss");
			put_job_labels(out, name, job);
			lh_buf_printf(out, ",set=\"");
			put_escaped(out, text_of(set, "set_name"));
			if (json_is_number(loss))
				lh_buf_printf(out, "\"} %.17g\n", json_number_value(loss));
			else
				lh_buf_printf(out, "\"} NaN\n");
		}
}

#define EACH(i, table) size_t i = 0; i < sizeof(table) / sizeof(*(table)); i++

void lh_prom_write(struct lh_buf *out, const json_t *daemon, const json_t *devices,
		   const json_t *jobs)
{
	const json_t *host = json_object_get(devices, "host");
	const json_t *gpus = json_object_get(devices, "gpus");

	put_head(out, "lighthouse_build_info", "gauge", "1; its label is the version of lhd.");
	lh_buf_printf(out, "lighthouse_build_info{version=\"");
	put_escaped(out, text_of(daemon, "version"));
	lh_buf_printf(out, "\"} 1\n");
	for (EACH(i, of_daemon))
		put_single(out, &of_daemon[i], daemon);
	for (EACH(i, of_host))
		put_single(out, &of_host[i], host);
	for (EACH(i, of_gpus))
		put_rows(out, &of_gpus[i], gpus, put_gpu_labels);
	put_states(out, jobs);
	for (EACH(i, of_jobs))
		put_rows(out, &of_jobs[i], jobs, put_job_labels);
	put_validation(out, jobs);
}
