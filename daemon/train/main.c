/* main.c: the worker's command line; see proto.h for its contract.
 *
 *   lhworker-cpu --attempt DIR    train the job whose attempt directory DIR is
 *   lhworker-cpu --join FILE [S]  be a rank of the job whose join file FILE is
 *   lhworker-cpu --gather DIR MPI the process that such ranks come to
 *   lhworker-cpu --sample CKPT    arguments as JSON on stdin, text on stdout
 *   lhworker-cpu --probe          the device as JSON: {name, memory_bytes, count}, or
 *                                 {text, hint} and exit code 1
 *
 * lhworker-cuda is the same file compiled with LH_WORKER_OPS=lh_ops_cuda.
 *
 * Training needs the job directory's lock: two workers never share one; and that of
 * the GPU, which one state directory's workers share (gpulock.h). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "jobs/jobfile.h"
#include "join/door.h"
#include "join/join.h"
#include "join/launcher.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"
#include "train/checkpoint.h"
#include "train/link.h"
#include "train/loop.h"
#include "train/sample.h"
#include "train/team.h"

#ifndef LH_WORKER_OPS
#define LH_WORKER_OPS lh_ops_cpu
#endif

enum { LOCK_WAIT_MS = 20000, LINGER_MS = 3000, NICE = 5, ARGS_MAX_BYTES = 1 << 20,
       FILE_MAX_BYTES = 64 << 20 };

static volatile sig_atomic_t stop;

static void on_term(int signal)
{
	(void)signal;
	stop = 1;
}

/* The lock of the job; a predecessor that is still ending gets time to. */
static int take_lock(const char *job_dir, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", job_dir, LH_JOB_LOCK);
	int64_t end_us = lh_clock_us() + LOCK_WAIT_MS * 1000;
	int fd;

	while ((fd = lh_fs_lock(path, err)) == LH_EBUSY && lh_clock_us() < end_us && !stop)
		usleep(50000);
	free(path);
	return fd;
}

static int train(const char *dir, const json_t *start, const json_t *spec,
		 const struct lh_job *job, const struct lh_joined *place,
		 struct lh_peers *peers, const char *job_dir, bool *done, struct lh_err *err)
{
	char *spool = lh_asprintf("%s/%s", dir, LH_ATTEMPT_SPOOL);
	char *checkpoints = lh_asprintf("%s/%s", job_dir, LH_JOB_CHECKPOINTS);
	char *state_dir = lh_asprintf("%s/../..", job_dir);
	struct lh_loop_config loop = { .job = job, .spec = spec, .ops = &LH_WORKER_OPS,
				       .checkpoints = checkpoints, .peers = peers,
				       .host_ranks = place->host_ranks,
				       .devices = place->devices, .done = done,
				       .state_dir = state_dir, .stop = &stop };
	struct lh_link_config link = { .spool = spool };
	json_int_t id, attempt, generation;
	int paused, rc = 0;

	if (json_unpack((json_t *)start, "{s:I, s:I, s:I, s:s, s:s, s:b}", "job", &id,
			"attempt", &attempt, "generation", &generation, "token",
			&link.token, "socket", &link.socket, "paused", &paused))
		rc = lh_err_set(err, LH_ECORRUPT, "'%s/%s' lacks a field", dir,
				LH_ATTEMPT_START);
	if (rc)
		goto done;
	link.job = id;
	link.attempt = attempt;
	link.generation = generation;
	LH_FAILPOINT("worker.dial");
	link.held = json_object_get(start, "held");
	rc = lh_link_open(&loop.link, &link, err);
	if (rc)
		goto done;
	loop.attempt = attempt;
	loop.paused = paused;
	loop.saved = json_is_true(json_object_get(start, "saved"));
	loop.cache = json_string_value(json_object_get(start, "cache"));
	loop.replay = json_object_get(start, "replay");
	rc = lh_loop_run(&loop, err);
	lh_link_close(loop.link, LINGER_MS);
done:
	free(spool);
	free(checkpoints);
	free(state_dir);
	return rc;
}

/* For those who started its ranks, before these end. */
static int tell_done(const char *dir, struct lh_err *err)
{
	char *path = lh_asprintf("%s/" LH_ATTEMPT_DONE, dir);
	int rc = lh_fs_write_atomic(path, "", 0, err);

	free(path);
	return rc;
}

/* As rank 0, which has the job's lock. */
static int lead(const char *dir, const json_t *start, const json_t *spec,
		const struct lh_job *job, const struct lh_joined *place,
		struct lh_peers *peers, const char *job_dir, struct lh_err *err)
{
	int lock = take_lock(job_dir, err), rc;
	bool done = false;

	if (lock < 0)
		return lock;
	rc = train(dir, start, spec, job, place, peers, job_dir, &done, err);
	if (!rc && done && *job->join)
		rc = tell_done(dir, err);
	close(lock);
	return rc;
}

/* As another: SIGTERM comes to all, and rank 0 says what is done about it. */
static int follow(const json_t *start, const struct lh_job *job, int rank,
		  const struct lh_joined *place, struct lh_peers *peers, struct lh_err *err)
{
	const json_t *cache = json_object_get(start, "cache");
	struct lh_team_config c = { .job = job, .ops = &LH_WORKER_OPS,
				    .cache = json_string_value(cache), .rank = rank,
				    .size = job->devices,
				    .host_ranks = place->host_ranks, .peers = peers };

	signal(SIGTERM, SIG_IGN);
	lh_log_set_level(LH_LOG_WARN); /* what rank 0 says is the same */
	return lh_team_follow(&c, err);
}

/* Not the launcher's pipe, which fills when nobody reads it. On a host without the log that
 * pipe leads to it. */
static void keep_output(const char *dir)
{
	char *log = lh_asprintf("%s/%s", dir, LH_ATTEMPT_LOG);
	int fd = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd >= 0) {
		dup2(fd, 1);
		dup2(fd, 2);
		close(fd);
	}
	free(log);
}

static int run_rank(const char *dir, const json_t *start, const json_t *spec,
		    const char *job_dir, struct lh_err *err)
{
	struct lh_peers *peers = NULL;
	struct lh_job job = { 0 };
	struct lh_joined place;
	int rank = 0, rc = lh_jobfile_from_json(&job, spec, err);

	if (!rc)
		rc = lh_launcher_find_own(&rank, job.devices, environ, err);
	lh_joined_find(&place, rank, job.devices);
	if (!rc && job.devices > 1) {
		keep_output(dir);
		LH_WORKER_OPS.choose(place.device, place.devices);
		rc = lh_peers_begin(&peers, dir, rank, job.devices, err);
	}
	/* lhd and the machine's owner come first. */
	errno = 0;
	if (!rc && nice(NICE) == -1 && errno)
		lh_warn("cannot be nice: %s", strerror(errno));
	if (!rc)
		rc = rank ? follow(start, &job, rank, &place, peers, err) :
			    lead(dir, start, spec, &job, &place, peers, job_dir, err);
	lh_peers_leave(peers);
	lh_job_release(&job);
	return rc;
}

static int run_attempt(const char *arg)
{
	char *dir = realpath(arg, NULL), *job_dir;
	json_t *start = NULL, *spec = NULL;
	struct lh_err err = LH_ERR_INIT;
	int rc;

	if (!dir) {
		fprintf(stderr, "error: no directory '%s'\n", arg);
		return 2;
	}
	job_dir = lh_strdup(dir);
	*strrchr(job_dir, '/') = '\0';
	rc = lh_json_read(dir, LH_ATTEMPT_START, FILE_MAX_BYTES, &start, &err);
	if (!rc)
		rc = lh_json_read(job_dir, LH_JOB_SPEC, FILE_MAX_BYTES, &spec, &err);
	if (!rc)
		rc = run_rank(dir, start, spec, job_dir, &err);
	if (rc < 0)
		lh_log_err(LH_LOG_ERROR, "worker", &err);
	json_decref(start);
	json_decref(spec);
	free(job_dir);
	free(dir);
	return rc < 0;
}

/* ---- ranks that the user starts -------------------------------------------- */

static int run_gather(const char *arg, const char *launcher)
{
	char *dir = realpath(arg, NULL);
	struct lh_err err = LH_ERR_INIT;
	int rc;

	if (!dir) {
		fprintf(stderr, "error: no directory '%s'\n", arg);
		return 2;
	}
	rc = lh_door_run(dir, launcher, &err);
	if (rc < 0)
		lh_log_err(LH_LOG_ERROR, "waiting for ranks", &err);
	free(dir);
	return rc < 0 ? 1 : rc;
}

static int run_join(const char *file, const char *seconds)
{
	struct lh_err err = LH_ERR_INIT;
	char *end = NULL;
	long wait_s = seconds ? strtol(seconds, &end, 10) : LH_JOIN_WAIT_S;
	int rc;

	if (seconds && (*end || !*seconds || wait_s < 0 || wait_s > INT_MAX)) {
		fprintf(stderr, "error: '%s' is no number of seconds\n", seconds);
		return 2;
	}
	rc = lh_join_run(file, (int)wait_s, LH_WORKER_OPS.name, &err);
	if (rc)
		lh_log_err(LH_LOG_ERROR, "join", &err);
	return !rc ? 0 : lh_err_is_transient(rc) ? 1 : 2;
}

/* ---- sampling from a checkpoint -------------------------------------------- */

static void print_json_take(json_t *m)
{
	json_dumpf(m, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(m);
}

static int print_piece(void *arg, json_t *piece)
{
	(void)arg;
	json_object_set_new(piece, "m", json_string("piece"));
	print_json_take(json_incref(piece));
	return ferror(stdout);
}

static int sample(const char *path, const json_t *json, json_t **result,
		  struct lh_err *err)
{
	struct lh_job job = { 0 };
	struct lh_model *model = NULL;
	struct lh_dev *dev = NULL;
	struct lh_sample_args args;
	struct lh_progress p;
	json_t *manifest = NULL;
	int rc = lh_sample_parse(&args, json, err);

	if (!rc) {
		rc = lh_manifest_read(path, &manifest, err);
		if (rc)
			lh_err_prefix(err, "checkpoint '%s'", path);
	}
	if (!rc)
		rc = lh_jobfile_from_json(&job, json_object_get(manifest, "job"), err);
	/* One token at a time: products of a matrix and a vector gain nothing from
	 * more threads, and waiting for each other costs. */
	if (!rc)
		rc = lh_ops_cpu.open(&dev, 1, err);
	/* No activations are needed: decoding has its own. */
	if (!rc)
		rc = lh_model_new(&model, &lh_ops_cpu, dev, NULL, &job.model, 1, 1, NULL, 0,
				  err);
	if (!rc)
		rc = lh_checkpoint_load(path, model, &p, false, err);
	if (!rc)
		rc = lh_sample_run(model, &job, p.step, &args, print_piece, NULL, result,
				   err);
	lh_model_free(model);
	lh_ops_cpu.close(dev);
	lh_job_release(&job);
	json_decref(manifest);
	return rc;
}

static int run_sample(const char *path)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *json = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL), *result = NULL;
	int rc = json ? sample(path, json, &result, &err) :
			lh_err_set(&err, LH_EPARSE, "stdin holds no JSON object");

	json_decref(json);
	if (!rc) {
		print_json_take(json_pack("{s:s, s:o}", "m", "reply", "result", result));
		return 0;
	}
	print_json_take(json_pack("{s:s, s:{s:s, s:s, s:s}}", "m", "reply", "error",
				  "code", lh_err_name(rc), "text", err.text, "hint",
				  err.hint));
	return 1;
}

/* ---- the device ------------------------------------------------------------ */

static int run_probe(void)
{
	struct lh_device_info info;
	struct lh_err err = LH_ERR_INIT;
	int rc = LH_WORKER_OPS.probe(0, &info, &err);

	if (rc)
		print_json_take(json_pack("{s:s, s:s}", "text", err.text, "hint",
					  err.hint));
	else
		print_json_take(json_pack("{s:s, s:I, s:i}", "name", info.name,
					  "memory_bytes", (json_int_t)info.memory_bytes,
					  "count", info.count));
	return rc < 0;
}

int main(int argc, char **argv)
{
	static const char usage[] =
		"usage: lhworker-cpu --attempt DIR | --gather DIR LAUNCHER | "
		"--join FILE [SECONDS] |\n"
		"                    --sample CHECKPOINT | --probe\n"
		"\nTrains one job, or samples from a checkpoint. lhd starts it; by hand, and "
		"by a\nlauncher of yours for a job with join:\n"
		"  srun lhworker-cpu --join STATE/jobs/1/join\n"
		"  echo '{\"prompt\": \"int \"}' | lhworker-cpu --sample "
		"STATE/jobs/1/checkpoints/step-0000000100\n";
	struct sigaction term = { .sa_handler = on_term };

	sigaction(SIGTERM, &term, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		puts(LH_VERSION);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return run_probe();
	if (argc == 3 && !strcmp(argv[1], "--attempt"))
		return lh_joined_code(run_attempt(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "--gather"))
		return run_gather(argv[2], argv[3]);
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "--join"))
		return run_join(argv[2], argc == 4 ? argv[3] : NULL);
	if (argc == 3 && !strcmp(argv[1], "--sample"))
		return run_sample(argv[2]);
	fputs(usage, stderr);
	return 2;
}
