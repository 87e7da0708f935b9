/* gpu.c: see gpu.h. */
#include "jobs/gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "train/estimate.h"

enum { PROBE_MS = 20000, ANSWER_MAX_BYTES = 4096 };

extern char **environ;

/* Reads until end of file or the deadline; 0 or -1. */
static int read_answer(int fd, char *out, size_t room)
{
	int64_t end = lh_clock_us() + PROBE_MS * 1000;
	size_t used = 0;

	while (used + 1 < room) {
		int64_t left_ms = (end - lh_clock_us()) / 1000;
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
			return -1;
		n = read(fd, out + used, room - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	out[used] = '\0';
	return 0;
}

/* Runs `program --probe`; its output, or why there is none. */
static int ask(const char *program, char *answer, size_t room, struct lh_err *err)
{
	char *args[] = { (char *)program, "--probe", NULL };
	posix_spawn_file_actions_t files;
	int pipes[2], rc, status = 0;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC))
		return lh_err_set(err, LH_EIO, "no pipe: %s", strerror(errno));
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, pipes[1], STDOUT_FILENO);
	rc = posix_spawn(&pid, program, &files, NULL, args, environ);
	posix_spawn_file_actions_destroy(&files);
	close(pipes[1]);
	if (rc) {
		close(pipes[0]);
		return lh_err_set(err, LH_EUNSUPPORTED, "'%s' does not start: %s",
				  program, strerror(rc));
	}
	rc = read_answer(pipes[0], answer, room);
	if (rc)
		kill(pid, SIGKILL);
	close(pipes[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc)
		return lh_err_set(err, LH_EUNSUPPORTED, "'%s --probe' does not answer",
				  program);
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
		return lh_err_set(err, LH_EUNSUPPORTED, "'%s' cannot run here; by hand it "
				  "says why", program);
	return 0;
}

static int parse(struct lh_gpu *gpu, const char *answer, struct lh_err *err)
{
	json_t *j = json_loads(answer, 0, NULL);
	const char *name, *text, *hint;
	json_int_t bytes;
	int rc = 0;

	if (j && !json_unpack(j, "{s:s, s:I, s:i}", "name", &name, "memory_bytes", &bytes,
			      "count", &gpu->count) && gpu->count > 0) {
		snprintf(gpu->name, sizeof(gpu->name), "%.127s", name);
		gpu->memory_bytes = bytes;
	} else if (j && !json_unpack(j, "{s:s, s:s}", "text", &text, "hint", &hint)) {
		rc = lh_err_set(err, LH_EUNSUPPORTED, "%s", text);
		lh_err_hint(err, "%s", hint);
	} else {
		rc = lh_err_set(err, LH_EPROTO, "the probe's answer is not understood");
		lh_err_hint(err, "lhworker-cuda is of another version");
	}
	json_decref(j);
	return rc;
}

void lh_gpu_find(struct lh_gpu *gpu, const char *bin_dir)
{
	char *program = lh_asprintf("%s/lhworker-cuda", bin_dir);
	char answer[ANSWER_MAX_BYTES];
	int rc;

	memset(gpu, 0, sizeof(*gpu));
	if (access(program, X_OK)) {
		rc = lh_err_set(&gpu->why, LH_EUNSUPPORTED, "there is no '%s'", program);
		lh_err_hint(&gpu->why, "make builds it where nvcc of CUDA 13 is");
	} else {
		rc = ask(program, answer, sizeof(answer), &gpu->why);
		if (!rc)
			rc = parse(gpu, answer, &gpu->why);
	}
	gpu->usable = !rc;
	free(program);
}

/* The file said `all`, and what there is decides whether the batch can be divided. */
static int take_all(const struct lh_gpu *gpu, struct lh_job *job, struct lh_err *err)
{
	const struct lh_job_batch *b = &job->batch;
	struct lh_job all = *job; /* borrows */
	int n = job->device == LH_DEVICE_CUDA ? gpu->count : 1;

	all.devices = n < LH_DEVICES_MAX ? n : LH_DEVICES_MAX;
	if (all.devices % job->context) {
		lh_err_set(err, LH_EJOBFILE, "devices: all are %d here, which context: %d does "
			   "not divide", all.devices, job->context);
		return lh_err_hint(err, "devices: a multiple of it, or context: 1");
	}
	if (b->sequences % lh_job_groups(&all) ||
	    (b->micro_sequences && lh_job_share(&all) % b->micro_sequences)) {
		lh_err_set(err, LH_EJOBFILE, "devices: all are %d here, which do not divide the "
			   "%" PRId64 " sequences into equal micro-batches", all.devices,
			   b->sequences);
		return lh_err_hint(err, "another batch.sequences, or devices: as many as do");
	}
	job->devices = all.devices;
	job->all_devices = false;
	return 0;
}

int lh_gpu_place(const struct lh_gpu *gpu, struct lh_job *job, struct lh_err *err)
{
	struct lh_estimate e;
	int rc = 0;

	if (job->device == LH_DEVICE_AUTO)
		job->device = gpu->usable ? LH_DEVICE_CUDA : LH_DEVICE_CPU;
	if (job->device == LH_DEVICE_CUDA && !gpu->usable) {
		lh_err_set(err, LH_EUNSUPPORTED, "device: cuda cannot be had: %s",
			   gpu->why.text);
		return lh_err_hint(err, "%s", *gpu->why.hint ? gpu->why.hint :
							       "device: cpu works here");
	}
	if (job->all_devices)
		rc = take_all(gpu, job, err);
	if (rc)
		return rc;
	/* Of ranks that join only some are here. */
	if (job->device == LH_DEVICE_CUDA && !*job->join && job->devices > gpu->count) {
		lh_err_set(err, LH_EUNSUPPORTED, "devices: %d cannot be had: this machine has %d "
			   "GPU%s of the kind of its first", job->devices, gpu->count,
			   gpu->count > 1 ? "s" : "");
		return lh_err_hint(err, "devices: all takes as many as there are");
	}
	if (job->device == LH_DEVICE_CUDA)
		return lh_estimate_job(&e, job, &lh_sizes_cuda, NULL,
				       lh_chip_usable_bytes(gpu->memory_bytes), err);
	return lh_estimate_job(&e, job, &lh_sizes_cpu, NULL,
			       lh_host_memory_bytes() / (*job->join ? 1 : job->devices), err);
}
