/* worker_story.h: lhworker-cpu as a process for its tests: a job directory, an lhd
 * that the test plays (fake_lhd.h), and what the worker told it. Included after
 * cmocka.h; WORKER_TESTS(W(name), ...) at the end is the program. */
#ifndef LIGHTHOUSE_TEST_WORKER_STORY_H
#define LIGHTHOUSE_TEST_WORKER_STORY_H

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

#include "../built.h"
#include "fake_lhd.h"
#include "jobs/jobfile.h"
#include "lighthouse/shard.h"

enum { LIMIT_MS = 120000, STEPS_MAX = 50000, EVALS_MAX = 64 };

/* What a job has told, over all its attempts. */
struct story {
	double loss[STEPS_MAX], lr[STEPS_MAX]; /* of step i, from 1 */
	int phase[STEPS_MAX];
	int64_t steps;                         /* 1 .. steps are known */
	int64_t attempt_steps;                 /* step records of this attempt */
	char evals[EVALS_MAX][16];             /* reasons */
	int64_t eval_step[EVALS_MAX];
	int eval_count;
	int64_t applied_id, applied_step, refused_id;
	char refused[512];
	char state[16], warning[600];
	int64_t saved_step, state_step;
	char end[16], end_code[32], end_text[512];
	char doing[16];                        /* as its progress says */
	json_t *reply;
	char pieces[512];
};

static struct fake_lhd lhd;
static struct story story;
static int attempt, worker;
static int64_t last_seq;

/* ---- the job --------------------------------------------------------------- */

static inline void pack(const char *name, uint32_t vocab, int64_t count, int32_t stride)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	assert_int_equal(lh_shard_writer_new(&w, path, vocab, vocab - 1, &err), 0);
	for (int64_t i = 0; i < count; i++) {
		int32_t id = (int32_t)((i * i / 5 + i % stride * 7) % vocab);

		assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
	}
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	free(path);
}

static const char base_job[] =
	"name: tiny\nthreads: 1\n"
	"model: {vocab: 257, dim: 16, layers: 2, heads: 2, ffn_dim: 24, init_std: 0.1}\n"
	"data: {train: train.bin, validation: val.bin, seq_len: 32}\n"
	"batch: {sequences: 4, micro_sequences: 2}\n"
	"optimizer: {lr: 2e-3, warmup_steps: 4, schedule: linear, final_lr_factor: 0.25}\n"
	"evaluation: {sequences: 3}\n";

#define LIGHTHOUSE "attention: lighthouse, levels: 2, pool: 2, topk: 8, tile: 4"

/* Two phases, long enough to be met half-way. */
static const char two_phases[] =
	"checkpoint: {every_steps: 40, keep: 2}\n"
	"phases:\n"
	"  - {name: a, " LIGHTHOUSE ", dense_layers: [0], until: {steps: 200}}\n"
	"  - {name: b, attention: full, until: {steps: 120}}\n";

static const char three_phases[] =
	"checkpoint: {every_steps: 0, keep: 2}\n"
	"phases:\n"
	"  - {name: a, attention: full, until: {steps: 20}}\n"
	"  - {name: b, " LIGHTHOUSE ", lr_factor: 0.5, until: {steps: 20}}\n"
	"  - {name: c, attention: full, until: {steps: 10}}\n";

/* One that ends only when it is told to. */
static const char endless[] =
	"checkpoint: {every_steps: 0, keep: 2}\n"
	"phases:\n"
	"  - {name: a, attention: full, until: manual}\n"
	"  - {name: b, attention: full, until: {steps: 5}}\n";

static inline void write_json_take(const char *path, json_t *json)
{
	struct lh_err err = LH_ERR_INIT;
	char *text = json_dumps(json, JSON_REAL_PRECISION(17));

	assert_int_equal(lh_fs_write_atomic(path, text, strlen(text), &err), 0);
	free(text);
	json_decref(json);
}

/* The job of base_job and `more`, and overrides, for the attempts to come. */
static inline void write_job(const char *more, const char *const *set, int set_count)
{
	char *yaml = lh_asprintf("%s%s", base_job, more);
	char *path = scratch_path("1/" LH_JOB_SPEC);
	struct lh_jobfile_source src = { .yaml = yaml, .yaml_bytes = strlen(yaml),
					 .base_dir = scratch_dir, .set = set,
					 .set_count = set_count };
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };

	if (lh_jobfile_load(&job, &src, &err))
		fail_msg("%s (%s)", err.text, err.hint);
	write_json_take(path, lh_jobfile_to_json(&job));
	lh_job_release(&job);
	free(path);
	free(yaml);
}

/* A job directory of its own, and nothing told yet. */
static inline void new_job(const char *more, const char *const *set, int set_count)
{
	char *path = scratch_path("1");

	lh_fs_remove_tree(path, NULL);
	assert_int_equal(mkdir(path, 0700), 0);
	free(path);
	write_job(more, set, set_count);
	json_decref(story.reply);
	memset(&story, 0, sizeof(story));
	story.saved_step = -1;
	attempt = 0;
}

/* ---- the worker ------------------------------------------------------------ */

/* argv[0]: the program's name, NULL for lhworker-cpu; is replaced by its path.
 * Output goes to a file of the scratch directory. */
static inline int spawn(char **argv, const char *out)
{
	char *program = built_program(argv[0] ? argv[0] : "lhworker-cpu");
	char *log = scratch_path(out), *in = scratch_path("stdin");
	int pid;

	argv[0] = program;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		int from = open(lh_fs_exists(in) ? in : "/dev/null", O_RDONLY);

		dup2(from, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		execv(program, argv);
		_exit(99);
	}
	free(program);
	free(log);
	free(in);
	return pid;
}

/* The next attempt, which has not been talked to. `replay` is taken. */
static inline void launch(bool paused, json_t *replay)
{
	char *dir = lh_asprintf("%s/1/attempt-%d", scratch_dir, ++attempt);
	char *path = lh_asprintf("%s/%s", dir, LH_ATTEMPT_START);
	char *argv[] = { NULL, "--attempt", dir, NULL };

	assert_int_equal(mkdir(dir, 0700), 0);
	write_json_take(path, json_pack("{s:i, s:i, s:s, s:i, s:s, s:b, s:o}", "job", 1,
					"attempt", attempt, "token", "secret",
					"generation", 3, "socket", lhd.path, "paused",
					paused, "replay", replay ? replay : json_array()));
	worker = spawn(argv, "worker.log");
	story.attempt_steps = 0;
	last_seq = 0;
	free(path);
	free(dir);
}

/* Accepts the worker and bids it welcome. */
static inline void greet(void)
{
	json_t *hello = fake_accept(&lhd);

	assert_int_equal(fake_int(hello, "attempt"), attempt);
	assert_int_equal(fake_int(hello, "pid"), worker);
	json_decref(hello);
	fake_welcome(&lhd, 3, last_seq);
}

static inline void begin(bool paused, json_t *replay)
{
	launch(paused, replay);
	greet();
}

/* It has ended with this code, or by this signal. */
static inline void ended(int code, int sig)
{
	int status = built_wait(worker, LIMIT_MS);

	worker = 0;
	if (sig) {
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), sig);
		return;
	}
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) != code) {
		size_t bytes;

		fail_msg("exit code %d: %s", WEXITSTATUS(status),
			 scratch_read("worker.log", &bytes));
	}
}

/* ---- what it tells --------------------------------------------------------- */

static inline const char *string(const json_t *r, const char *key)
{
	const char *s = json_string_value(json_object_get(r, key));

	assert_non_null(s);
	return s;
}

static inline void copy(char *to, size_t bytes, const json_t *r, const char *key)
{
	snprintf(to, bytes, "%s", string(r, key));
}
#define COPY(to, r, key) copy(to, sizeof(to), r, key)

/* A step that was told before must be told again to the last bit. */
static inline void on_step(const json_t *r, int64_t step)
{
	double loss = json_number_value(json_object_get(r, "loss"));
	double lr = json_number_value(json_object_get(r, "lr"));
	int phase = (int)fake_int(r, "phase");

	assert_in_range(step, 1, STEPS_MAX - 1);
	assert_true(step <= story.steps + 1);
	story.attempt_steps++;
	if (step <= story.steps) {
		assert_true(loss == story.loss[step] && lr == story.lr[step]);
		assert_int_equal(phase, story.phase[step]);
	}
	story.loss[step] = loss;
	story.lr[step] = lr;
	story.phase[step] = phase;
	story.steps = step > story.steps ? step : story.steps;
	assert_true(json_is_real(json_object_get(r, "grad_norm")));
	assert_int_equal(fake_int(r, "tokens"), 4 * 32);
}

static inline void on_record(const json_t *r)
{
	const char *t = string(r, "t");
	int64_t step = fake_int(r, "step");

	assert_int_equal(fake_int(r, "seq"), ++last_seq);
	if (!strcmp(t, "step")) {
		on_step(r, step);
	} else if (!strcmp(t, "eval")) {
		if (strcmp(string(r, "attention"), "full"))
			return;
		assert_true(story.eval_count < EVALS_MAX);
		assert_true(json_number_value(json_object_get(r, "loss")) > 0);
		assert_int_equal(fake_int(r, "tokens"), 3 * 32);
		story.eval_step[story.eval_count] = step;
		COPY(story.evals[story.eval_count], r, "reason");
		story.eval_count++;
	} else if (!strcmp(t, "command") && !strcmp(string(r, "outcome"), "applied")) {
		story.applied_id = fake_int(r, "command");
		story.applied_step = step;
	} else if (!strcmp(t, "command")) {
		story.refused_id = fake_int(r, "command");
		COPY(story.refused, r, "text");
	} else if (!strcmp(t, "state")) {
		COPY(story.state, r, "state");
		story.state_step = step;
	} else if (!strcmp(t, "checkpoint")) {
		story.saved_step = step;
	} else if (!strcmp(t, "event")) {
		COPY(story.warning, r, "text");
	} else if (!strcmp(t, "end")) {
		COPY(story.end, r, "outcome");
		COPY(story.end_code, r, "code");
		COPY(story.end_text, r, "text");
	}
}

static inline void on_message(const json_t *m)
{
	json_t *r;
	size_t i;

	if (fake_is(m, "reply"))
		story.reply = json_incref((json_t *)m);
	if (fake_is(m, "progress"))
		COPY(story.doing, m, "doing");
	if (fake_is(m, "piece"))
		strncat(story.pieces, string(m, "text"),
			sizeof(story.pieces) - strlen(story.pieces) - 1);
	if (!fake_is(m, "records"))
		return;
	json_array_foreach (json_object_get(m, "records"), i, r)
		on_record(r);
	fake_ack(&lhd, last_seq);
}

/* Listens until `done` (NULL: until the worker hangs up). */
static inline void listen_until(bool (*done)(int64_t arg), int64_t arg)
{
	int64_t end = lh_clock_us() + LIMIT_MS * 1000ll;

	while (!done || !done(arg)) {
		json_t *m = fake_read_within(&lhd, 0);

		if (!m && done)
			fail_msg("the worker hung up too early: %s", story.end_text);
		if (!m)
			return;
		on_message(m);
		json_decref(m);
		assert_true(lh_clock_us() < end);
	}
}

static inline bool step_is(int64_t step)
{
	return story.attempt_steps && story.steps >= step;
}

static inline bool new_steps_are(int64_t n)
{
	return story.attempt_steps >= n;
}

static inline bool command_is_settled(int64_t id)
{
	return story.applied_id == id || story.refused_id == id;
}

static inline bool reply_is_there(int64_t arg)
{
	(void)arg;
	return story.reply != NULL;
}

static inline void command(int64_t id, const char *verb, const char *phase)
{
	fake_command(&lhd, id, verb, phase ? json_pack("{s:s}", "phase", phase) : NULL);
	listen_until(command_is_settled, id);
}

static inline void applied(int64_t id)
{
	if (story.applied_id != id)
		fail_msg("command %lld was refused: %s", (long long)id, story.refused);
}

static inline void refused(int64_t id, const char *why)
{
	assert_int_equal(story.refused_id, id);
	if (!strstr(story.refused, why))
		fail_msg("'%s' does not say '%s'", story.refused, why);
}

static inline json_t *replay_of(int64_t id, int64_t step, const char *phase)
{
	json_t *args = phase ? json_pack("{s:s}", "phase", phase) : json_object();

	return json_pack("{s:I, s:s, s:o, s:I}", "id", (json_int_t)id, "verb", "switch",
			 "args", args, "step", (json_int_t)step);
}

static inline void run_to_the_end(bool paused, json_t *replay)
{
	begin(paused, replay);
	listen_until(NULL, 0);
	ended(0, 0);
}

static inline void evals_are(const char *const *reasons, const int64_t *steps, int count)
{
	assert_int_equal(story.eval_count, count);
	for (int i = 0; i < count; i++) {
		assert_string_equal(story.evals[i], reasons[i]);
		assert_int_equal(story.eval_step[i], steps[i]);
	}
}

/* The newest checkpoint's directory name. */
static inline void newest_checkpoint(char name[32])
{
	char *dir = scratch_path("1/" LH_JOB_CHECKPOINTS);
	DIR *d = opendir(dir);
	struct dirent *e;

	*name = '\0';
	while (d && (e = readdir(d)))
		if (strlen(e->d_name) == 15 && strcmp(e->d_name, name) > 0)
			memcpy(name, e->d_name, 16);
	if (d)
		closedir(d);
	free(dir);
}

static inline void killed(void)
{
	kill(worker, SIGKILL);
	ended(0, SIGKILL);
	fake_hang_up(&lhd);
}

/* ---- fixture --------------------------------------------------------------- */

static inline int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	fake_open(&lhd);
	pack("train.bin", 257, 4000, 9);
	pack("val.bin", 257, 400, 9);
	return 0;
}

static inline int teardown(void **state)
{
	if (worker) {
		kill(worker, SIGKILL);
		waitpid(worker, NULL, 0);
		worker = 0;
	}
	fake_close(&lhd);
	json_decref(story.reply);
	story.reply = NULL;
	return scratch_teardown(state);
}

#define W(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define WORKER_TESTS(...)                                                      \
	int main(void)                                                         \
	{                                                                      \
		const struct CMUnitTest tests[] = { __VA_ARGS__ };             \
                                                                               \
		return cmocka_run_group_tests(tests, NULL, NULL);              \
	}

#endif
