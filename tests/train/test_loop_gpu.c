/* test_loop_gpu.c: a worker whose GPU is another lhd's: it waits, tells why, and can be
 * told to end. The GPU is the CPU's ops with a UUID. See worker_story.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/gpulock.h"
#include "train/loop.h"
#include "worker_story.h"

static struct lh_ops ops;
static char uuid[48];
static volatile sig_atomic_t stop;
static int other = -1; /* the other lhd's lock */

static int probe(int number, struct lh_device_info *info, struct lh_err *err)
{
	int rc = lh_ops_cpu.probe(number, info, err);

	snprintf(info->uuid, sizeof(info->uuid), "%.40s%s", uuid, number ? "-b" : "");
	return rc;
}

static void on_term(int signal)
{
	(void)signal;
	stop = 1;
}

static json_t *load(const char *name)
{
	size_t bytes;
	char *text = scratch_read(name, &bytes);
	json_t *json = json_loadb(text, bytes, 0, NULL);

	free(text);
	return json;
}

/* What the worker's main does, with these ops. */
static int train(void)
{
	char *checkpoints = scratch_path("1/" LH_JOB_CHECKPOINTS);
	char *spool = scratch_path("1/" LH_ATTEMPT_SPOOL);
	json_t *spec = load("1/" LH_JOB_SPEC), *replay = json_array();
	struct lh_link_config line = { .job = 1, .attempt = attempt, .generation = 3,
				       .token = "secret", .socket = lhd.path,
				       .spool = spool };
	struct lh_job job = { 0 };
	bool done = false;
	struct lh_loop_config loop = { .job = &job, .spec = spec, .ops = &ops,
				       .checkpoints = checkpoints, .attempt = attempt,
				       .state_dir = scratch_dir, .replay = replay,
				       .stop = &stop, .done = &done };
	struct lh_err err = LH_ERR_INIT;
	int rc = lh_jobfile_from_json(&job, spec, &err);

	loop.host_ranks = loop.devices = job.devices;
	if (!rc)
		rc = lh_link_open(&loop.link, &line, &err);
	if (rc)
		return 9;
	rc = lh_loop_run(&loop, &err);
	lh_link_close(loop.link, 3000);
	lh_job_release(&job);
	json_decref(spec);
	json_decref(replay);
	free(checkpoints);
	free(spool);
	return rc < 0;
}

static void begin_here(void)
{
	attempt++;
	worker = fork();
	assert_true(worker >= 0);
	if (!worker) {
		close(other); /* or it would be ours too */
		signal(SIGTERM, on_term);
		_exit(train());
	}
	last_seq = 0;
	greet();
}

static void other_takes(const char *which)
{
	char *dir = scratch_path("other");
	struct lh_err err = LH_ERR_INIT;

	assert_int_equal(lh_fs_mkdirs(dir, &err), 0);
	other = lh_gpulock_take(which, dir, &err);
	if (other < 0)
		fail_msg("%s", err.text);
	free(dir);
}

static void other_takes_it(void)
{
	other_takes(uuid);
}

static void other_gives_it_back(void)
{
	close(other);
	other = -1;
}

static bool waits(int64_t arg)
{
	(void)arg;
	return !strcmp(story.state, "starting") && strstr(story.warning, "/other") &&
	       !strcmp(story.doing, "waiting");
}

static void it_waits_until_the_gpu_is_free(void **state)
{
	struct lh_err err;

	(void)state;
	other_takes_it();
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin_here();
	listen_until(waits, 0);
	assert_non_null(strstr(story.warning, uuid));
	assert_non_null(strstr(story.warning, "hint: "));
	assert_int_equal(story.steps, 0);
	other_gives_it_back();
	listen_until(step_is, 1);
	/* From then on it is this one's. */
	assert_int_equal(lh_gpulock_take(uuid, "/", &err), LH_EBUSY);
	assert_non_null(strstr(err.text, scratch_dir));
	fake_command(&lhd, 1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "cancelled");
	other_takes_it();
	other_gives_it_back();
}

static void it_can_be_told_to_end_while_it_waits(void **state)
{
	(void)state;
	other_takes_it();
	new_job(three_phases, NULL, 0);
	begin_here();
	listen_until(waits, 0);
	kill(worker, SIGTERM);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");

	story.state[0] = '\0';
	begin_here();
	listen_until(waits, 0);
	fake_command(&lhd, 1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "cancelled");
	assert_int_equal(story.steps, 0);
	other_gives_it_back();
}

/* Before any of them is opened, in the order of their names. */
static void the_gpus_of_all_ranks_are_waited_for(void **state)
{
	char *second = lh_asprintf("%s-b", uuid), *path = lh_gpulock_path(second);
	struct lh_err err;

	(void)state;
	other_takes(second);
	new_job(endless, (const char *const[]){ "devices=2", "batch.sequences=4",
						"optimizer.schedule=constant" }, 3);
	begin_here();
	listen_until(waits, 0);
	assert_non_null(strstr(story.warning, second));
	assert_int_equal(lh_gpulock_take(uuid, "/", &err), LH_EBUSY); /* is taken already */
	fake_command(&lhd, 1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "cancelled");
	other_gives_it_back();
	other_takes_it(); /* both are free */
	other_gives_it_back();
	unlink(path);
	free(path);
	free(second);
}

/* Somebody made it impossible: better two on a GPU than none. */
static void without_a_lock_it_trains_and_says_so(void **state)
{
	char *path = lh_gpulock_path(uuid), *text;
	size_t bytes;

	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	new_job(three_phases, NULL, 0);
	begin_here();
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "done");
	text = scratch_read("1/" LH_ATTEMPT_SPOOL, &bytes);
	assert_non_null(strstr(text, path));
	free(text);
	assert_int_equal(rmdir(path), 0);
	free(path);
}

static int setup_ops(void **state)
{
	ops = lh_ops_cpu;
	ops.probe = probe;
	snprintf(uuid, sizeof(uuid), "GPU-test-%d", (int)getpid());
	return setup(state);
}

static int teardown_ops(void **state)
{
	char *path = lh_gpulock_path(uuid);

	unlink(path);
	free(path);
	return teardown(state);
}

#define G(name) cmocka_unit_test_setup_teardown(name, setup_ops, teardown_ops)

WORKER_TESTS(G(it_waits_until_the_gpu_is_free),
	     G(it_can_be_told_to_end_while_it_waits),
	     G(the_gpus_of_all_ranks_are_waited_for),
	     G(without_a_lock_it_trains_and_says_so))
