/* devices.c: see devices.h. A reading is begun on the pool and completed by lhgpus;
 * whoever asks meanwhile gets the same one. */
#include "devices/devices.h"

#include <stdlib.h>

#include "base/fs.h"
#include "devices/gpus.h"
#include "devices/host.h"

struct waiter {
	void (*done)(void *arg, json_t *devices);
	void *arg;
	struct waiter *next;
};

struct lh_devices {
	uv_loop_t *loop;
	struct lh_jobs *jobs;
	struct lh_gpus *gpus;
	struct lh_host host;         /* the pool's while there is `next` */
	struct waiter *waiters;
	json_t *now;                 /* the newest reading, or NULL */
	json_t *next;                /* the one under way, or NULL */
	int64_t read_ms;             /* when `now` was, loop's clock */
	uv_work_t work;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- one reading ----------------------------------------------------------- */

/* What the GPUs say that a process takes, or null where they do not know it. In a
 * container they may know it by a number of outside. */
static json_t *gpu_bytes_of(const json_t *gpus, json_int_t pid)
{
	json_t *gpu, *process;
	json_int_t bytes = -1;
	size_t i, k;

	json_array_foreach (gpus, i, gpu)
		json_array_foreach (json_object_get(gpu, "processes"), k, process)
			if (json_integer_value(json_object_get(process, "pid")) == pid)
				bytes = (bytes < 0 ? 0 : bytes) +
					json_integer_value(json_object_get(process, "bytes"));
	return bytes < 0 ? json_null() : json_integer(bytes);
}

static void finish(struct lh_devices *d)
{
	json_t *gpus = json_object_get(d->next, "gpus"), *worker, *gpu;
	struct waiter *w, *next;
	size_t i;

	json_array_foreach (json_object_get(d->next, "workers"), i, worker)
		json_object_set_new(worker, "gpu_bytes",
				    gpu_bytes_of(gpus, json_integer_value(
							       json_object_get(worker, "pid"))));
	json_array_foreach (gpus, i, gpu)
		json_object_del(gpu, "processes");
	json_decref(d->now);
	d->now = d->next;
	d->next = NULL;
	d->read_ms = (int64_t)uv_now(d->loop);
	w = d->waiters;
	d->waiters = NULL;
	for (; w; w = next) {
		next = w->next;
		w->done(w->arg, d->now);
		free(w);
	}
}

static void on_gpus(void *arg, json_t *gpus, const char *why)
{
	struct lh_devices *d = arg;

	json_object_set_new(d->next, "gpus", gpus ? json_incref(gpus) : json_array());
	json_object_set_new(d->next, "why_no_gpus", gpus ? json_null() : json_string(why));
	finish(d);
}

/* On a pool thread. */
static void work(uv_work_t *work)
{
	struct lh_devices *d = work->data;
	json_t *workers = json_object_get(d->next, "workers"), *worker;
	size_t i;

	json_object_set_new(d->next, "host", lh_host_read(&d->host));
	json_array_foreach (workers, i, worker) {
		int64_t bytes = lh_host_resident_bytes(
			&d->host, json_integer_value(json_object_get(worker, "pid")));

		json_object_set_new(worker, "host_bytes",
				    bytes < 0 ? json_null() : json_integer(bytes));
	}
}

static void on_worked(uv_work_t *work, int status)
{
	struct lh_devices *d = work->data;

	(void)status;
	lh_gpus_ask(d->gpus, on_gpus, d);
}

static void read_all(struct lh_devices *d)
{
	d->next = json_pack("{s:I, s:o}", "time_ms", (json_int_t)lh_time_ms(), "workers",
			    lh_jobs_processes(d->jobs));
	if (uv_queue_work(d->loop, &d->work, work, on_worked))
		LH_BUG("no work can be queued");
}

void lh_devices_ask(struct lh_devices *d, void (*done)(void *arg, json_t *devices), void *arg)
{
	struct waiter *w;

	if (d->now && (int64_t)uv_now(d->loop) - d->read_ms < LH_DEVICES_FRESH_MS) {
		done(arg, d->now);
		return;
	}
	w = lh_calloc(1, sizeof(*w));
	*w = (struct waiter){ done, arg, d->waiters };
	d->waiters = w;
	if (!d->next)
		read_all(d);
}

/* ---- open and closed ------------------------------------------------------- */

struct lh_devices *lh_devices_new(uv_loop_t *loop, struct lh_jobs *jobs,
				  const char *state_dir, const char *bin_dir)
{
	struct lh_devices *d = lh_calloc(1, sizeof(*d));
	char *program = lh_asprintf("%s/lhgpus", bin_dir);

	d->loop = loop;
	d->jobs = jobs;
	d->host = (struct lh_host){ .proc = "/proc", .state_dir = state_dir };
	d->gpus = lh_gpus_new(loop, program);
	d->work.data = d;
	free(program);
	return d;
}

static void on_gpus_closed(void *arg)
{
	struct lh_devices *d = arg;
	void (*closed)(void *arg) = d->closed;
	void *closed_arg = d->closed_arg;

	json_decref(d->now);
	free(d);
	closed(closed_arg);
}

void lh_devices_close(struct lh_devices *d, void (*closed)(void *arg), void *arg)
{
	LH_ASSERT(!d->next);
	d->closed = closed;
	d->closed_arg = arg;
	lh_gpus_close(d->gpus, on_gpus_closed, d);
}
