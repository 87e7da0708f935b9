/* test_worker.c: lhworker-cpu as a process, with a fake lhd at the other end: a
 * job runs to its end, is killed, stopped, steered, and in the end its losses
 * are those of the run that nobody disturbed, to the last bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

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
	json_t *reply;
	char pieces[512];
};

static struct fake_lhd lhd;
static struct story story;
static int attempt, worker;
static int64_t last_seq;

/* ---- the job --------------------------------------------------------------- */

static void pack(const char *name, uint32_t vocab, int64_t count, int32_t stride)
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

static void write_json_take(const char *path, json_t *json)
{
	struct lh_err err = LH_ERR_INIT;
	char *text = json_dumps(json, JSON_REAL_PRECISION(17));

	assert_int_equal(lh_fs_write_atomic(path, text, strlen(text), &err), 0);
	free(text);
	json_decref(json);
}

/* A job directory with a job of base_job and `more`, and overrides. */
static void new_job(const char *more, const char *const *set, int set_count)
{
	char *yaml = lh_asprintf("%s%s", base_job, more), *path = scratch_path("1");
	struct lh_jobfile_source src = { .yaml = yaml, .yaml_bytes = strlen(yaml),
					 .base_dir = scratch_dir, .set = set,
					 .set_count = set_count };
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };

	lh_fs_remove_tree(path, NULL);
	assert_int_equal(mkdir(path, 0700), 0);
	if (lh_jobfile_load(&job, &src, &err))
		fail_msg("%s (%s)", err.text, err.hint);
	free(path);
	path = scratch_path("1/" LH_JOB_SPEC);
	write_json_take(path, lh_jobfile_to_json(&job));
	lh_job_release(&job);
	free(path);
	free(yaml);
	json_decref(story.reply);
	memset(&story, 0, sizeof(story));
	story.saved_step = -1;
	attempt = 0;
}

/* ---- the worker ------------------------------------------------------------ */

/* argv[0] is replaced; output goes to a file of the scratch directory. */
static int spawn(char **argv, const char *out)
{
	char *program = built_program("lhworker-cpu"), *log = scratch_path(out);
	char *in = scratch_path("stdin");
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
static void launch(bool paused, json_t *replay)
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
static void greet(void)
{
	json_t *hello = fake_accept(&lhd);

	assert_int_equal(fake_int(hello, "attempt"), attempt);
	assert_int_equal(fake_int(hello, "pid"), worker);
	json_decref(hello);
	fake_welcome(&lhd, 3, last_seq);
}

static void begin(bool paused, json_t *replay)
{
	launch(paused, replay);
	greet();
}

/* It has ended with this code, or by this signal. */
static void ended(int code, int sig)
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

static const char *string(const json_t *r, const char *key)
{
	const char *s = json_string_value(json_object_get(r, key));

	assert_non_null(s);
	return s;
}

static void copy(char *to, size_t bytes, const json_t *r, const char *key)
{
	snprintf(to, bytes, "%s", string(r, key));
}
#define COPY(to, r, key) copy(to, sizeof(to), r, key)

/* A step that was told before must be told again to the last bit. */
static void on_step(const json_t *r, int64_t step)
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

static void on_record(const json_t *r)
{
	const char *t = string(r, "t");
	int64_t step = fake_int(r, "step");

	assert_int_equal(fake_int(r, "seq"), ++last_seq);
	if (!strcmp(t, "step")) {
		on_step(r, step);
	} else if (!strcmp(t, "eval")) {
		assert_true(story.eval_count < EVALS_MAX);
		assert_string_equal(string(r, "attention"), "full");
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

static void on_message(const json_t *m)
{
	json_t *r;
	size_t i;

	if (fake_is(m, "reply"))
		story.reply = json_incref((json_t *)m);
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
static void listen_until(bool (*done)(int64_t arg), int64_t arg)
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

static bool step_is(int64_t step)
{
	return story.attempt_steps && story.steps >= step;
}

static bool new_steps_are(int64_t n)
{
	return story.attempt_steps >= n;
}

static bool command_is_settled(int64_t id)
{
	return story.applied_id == id || story.refused_id == id;
}

static bool reply_is_there(int64_t arg)
{
	(void)arg;
	return story.reply != NULL;
}

static void command(int64_t id, const char *verb, const char *phase)
{
	fake_command(&lhd, id, verb, phase ? json_pack("{s:s}", "phase", phase) : NULL);
	listen_until(command_is_settled, id);
}

static void applied(int64_t id)
{
	if (story.applied_id != id)
		fail_msg("command %lld was refused: %s", (long long)id, story.refused);
}

static void refused(int64_t id, const char *why)
{
	assert_int_equal(story.refused_id, id);
	if (!strstr(story.refused, why))
		fail_msg("'%s' does not say '%s'", story.refused, why);
}

static json_t *replay_of(int64_t id, int64_t step, const char *phase)
{
	json_t *args = phase ? json_pack("{s:s}", "phase", phase) : json_object();

	return json_pack("{s:I, s:s, s:o, s:I}", "id", (json_int_t)id, "verb", "switch",
			 "args", args, "step", (json_int_t)step);
}

static void run_to_the_end(bool paused, json_t *replay)
{
	begin(paused, replay);
	listen_until(NULL, 0);
	ended(0, 0);
}

static void evals_are(const char *const *reasons, const int64_t *steps, int count)
{
	assert_int_equal(story.eval_count, count);
	for (int i = 0; i < count; i++) {
		assert_string_equal(story.evals[i], reasons[i]);
		assert_int_equal(story.eval_step[i], steps[i]);
	}
}

/* The newest checkpoint's directory name. */
static void newest_checkpoint(char name[32])
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

static void killed(void)
{
	kill(worker, SIGKILL);
	ended(0, SIGKILL);
	fake_hang_up(&lhd);
}

/* ---- fixture --------------------------------------------------------------- */

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	fake_open(&lhd);
	pack("train.bin", 257, 4000, 9);
	pack("val.bin", 257, 400, 9);
	return 0;
}

static int teardown(void **state)
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

/* ---- tests ----------------------------------------------------------------- */

static const char *const two_evals[] = { "start", "before_switch", "after_switch", "end" };

static void a_job_runs_to_its_end(void **state)
{
	char newest[32];

	(void)state;
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, 320);
	assert_int_equal(story.attempt_steps, 320);
	for (int64_t i = 1; i <= 320; i++)
		assert_int_equal(story.phase[i], i > 200);
	evals_are(two_evals, (int64_t[]){ 0, 200, 201, 320 }, 4);
	assert_true(story.lr[1] == 2e-3 / 4);
	assert_true(story.lr[320] == 2e-3 * 0.25);
	assert_true(story.loss[320] < story.loss[1]);
	newest_checkpoint(newest);
	assert_string_equal(newest, "step-0000000320");
}

static void the_same_job_has_the_same_losses(void **state)
{
	static struct story first;

	(void)state;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, NULL);
	first = story;
	first.reply = NULL;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, NULL);
	assert_int_equal(story.steps, 50);
	assert_memory_equal(story.loss, first.loss, sizeof(first.loss));
	/* Another seed: the comparison is able to fail. */
	new_job(three_phases, (const char *const[]){ "seed=2" }, 1);
	run_to_the_end(false, NULL);
	assert_true(story.loss[50] != first.loss[50]);
}

/* Kills in both phases; on_step compares what comes twice, and the reference
 * what comes once. */
static void a_killed_worker_repeats_its_losses_to_the_last_bit(void **state)
{
	static struct story quiet;
	char newest[32], *path;
	size_t bytes;
	char *data;

	(void)state;
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, NULL);
	quiet = story;
	quiet.reply = NULL;

	new_job(two_phases, NULL, 0);
	begin(false, NULL);
	listen_until(step_is, 95);
	killed();
	/* The newest checkpoint is damaged on top of it. */
	newest_checkpoint(newest);
	path = lh_asprintf("1/%s/%s/moments.safetensors", LH_JOB_CHECKPOINTS, newest);
	data = scratch_read(path, &bytes);
	data[bytes / 2] ^= 1;
	scratch_write(path, data, bytes);
	free(data);
	free(path);
	begin(false, NULL);
	listen_until(step_is, 230);
	assert_non_null(strstr(story.warning, newest));
	killed();
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_in_range(story.attempt_steps, 1, 160);
	assert_int_equal(story.steps, quiet.steps);
	assert_memory_equal(story.loss, quiet.loss, sizeof(quiet.loss));
	assert_memory_equal(story.lr, quiet.lr, sizeof(quiet.lr));
}

static void a_switch_is_applied_at_a_boundary_and_replayed_there(void **state)
{
	static struct story live;
	int64_t at;

	(void)state;
	new_job(two_phases, NULL, 0);
	begin(false, NULL);
	listen_until(step_is, 45);
	command(17, "switch", "b");
	applied(17);
	at = story.applied_step;
	listen_until(step_is, at + 5);
	killed();
	run_to_the_end(false, json_pack("[o]", replay_of(17, at, "b")));
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, at + 120);
	for (int64_t i = 1; i <= story.steps; i++)
		assert_int_equal(story.phase[i], i > at);
	/* The schedule ends where the job now ends. */
	assert_true(story.lr[story.steps] == 2e-3 * 0.25);
	live = story;
	live.reply = NULL;

	/* Nobody kills this one, and nobody commands. */
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, json_pack("[o]", replay_of(17, at, "b")));
	assert_int_equal(story.steps, live.steps);
	assert_memory_equal(story.loss, live.loss, sizeof(live.loss));
	assert_memory_equal(story.lr, live.lr, sizeof(live.lr));
	evals_are(two_evals, (int64_t[]){ 0, at, at + 1, at + 120 }, 4);
	assert_int_equal(story.applied_id, 0); /* its outcome is known already */
}

/* A later command came to an earlier step, after the run had gone back. */
static void replayed_commands_go_by_their_steps(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, json_pack("[o, o]", replay_of(9, 8, "c"),
					replay_of(12, 4, "b")));
	assert_int_equal(story.steps, 18);
	for (int64_t i = 1; i <= 18; i++)
		assert_int_equal(story.phase[i], i <= 4 ? 0 : i <= 8 ? 1 : 2);
}

/* "The next phase" at step 0, and a checkpoint that has it in it. */
static void a_command_that_a_checkpoint_holds_is_not_applied_again(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	begin(true, NULL);
	command(3, "switch", NULL);
	applied(3);
	command(4, "checkpoint", NULL);
	applied(4);
	assert_int_equal(story.saved_step, 0);
	killed();
	begin(false, json_pack("[o]", replay_of(3, 0, NULL)));
	listen_until(NULL, 0);
	ended(0, 0);
	assert_int_equal(story.steps, 30);
	assert_int_equal(story.phase[1], 1);
	assert_int_equal(story.phase[20], 1);
	assert_int_equal(story.phase[21], 2);
}

static void a_pause_keeps_a_checkpoint_and_commands_work(void **state)
{
	const char *text;

	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 3);
	command(1, "resume", NULL);
	refused(1, "not paused");
	command(2, "pause", NULL);
	applied(2);
	assert_string_equal(story.state, "paused");
	assert_int_equal(story.saved_step, story.applied_step);
	assert_int_equal(story.steps, story.applied_step);
	command(3, "pause", NULL);
	refused(3, "paused already");
	command(4, "switch", "nowhere");
	refused(4, "nowhere");
	command(5, "switch", "a");
	refused(5, "in phase 'a' already");
	command(6, "dance", NULL);
	refused(6, "no command 'dance'");

	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s, s:{s:s, s:i, s:i}}", "m", "call",
				       "call", 8, "method", "sample", "args", "prompt",
				       "ab", "max_tokens", 12, "seed", 4));
	listen_until(reply_is_there, 0);
	assert_int_equal(fake_int(story.reply, "call"), 8);
	text = string(json_object_get(story.reply, "result"), "text");
	assert_string_equal(text, story.pieces);

	command(9, "switch", NULL);
	applied(9);
	assert_string_equal(story.state, "paused");
	command(10, "switch", NULL);
	refused(10, "the last one");
	command(11, "resume", NULL);
	applied(11);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, story.applied_step + 5);
}

static void a_wrong_call_is_an_error_and_no_harm(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	begin(true, NULL);
	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s, s:{s:i}}", "m", "call", "call", 1,
				       "method", "sample", "args", "max_tokens", -1));
	listen_until(reply_is_there, 0);
	assert_string_equal(string(json_object_get(story.reply, "error"), "code"),
			    "LH_EPARAMS");
	json_decref(story.reply);
	story.reply = NULL;
	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s}", "m", "call", "call", 2,
				       "method", "fly"));
	listen_until(reply_is_there, 0);
	assert_string_equal(string(json_object_get(story.reply, "error"), "code"),
			    "LH_EUNSUPPORTED");
	command(1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
}

static void a_cancelled_job_keeps_a_checkpoint(void **state)
{
	char newest[32], want[32];

	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 3);
	command(1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "cancelled");
	snprintf(want, sizeof(want), "step-%010d", (int)story.steps);
	newest_checkpoint(newest);
	assert_string_equal(newest, want);
	assert_string_equal(story.evals[story.eval_count - 1], "start");
}

static void stopped_by_command_or_signal_it_goes_on_where_it_was(void **state)
{
	static struct story quiet;
	int64_t at;

	(void)state;
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, NULL);
	quiet = story;
	quiet.reply = NULL;
	new_job(two_phases, NULL, 0);
	begin(false, NULL);
	listen_until(new_steps_are, 13);
	kill(worker, SIGTERM);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");
	at = story.steps;
	assert_true(at < 320);
	assert_int_equal(story.saved_step, at);
	begin(false, NULL);
	listen_until(new_steps_are, 13);
	command(1, "stop", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");
	assert_int_equal(story.steps, at + story.attempt_steps); /* none twice */
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_memory_equal(story.loss, quiet.loss, sizeof(quiet.loss));
}

/* Paused, it is stopped by the signal all the same. */
static void a_paused_worker_can_be_stopped(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	begin(true, NULL);
	kill(worker, SIGTERM);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");
	assert_int_equal(story.steps, 0);
}

static void without_lhd_it_finishes_its_job(void **state)
{
	size_t bytes;
	char *data, *line, *next;

	(void)state;
	new_job(three_phases, NULL, 0);
	close(lhd.listener);
	lhd.listener = -1;
	unlink(lhd.path);
	launch(false, NULL);
	ended(0, 0);
	data = scratch_read("1/attempt-1/" LH_ATTEMPT_SPOOL, &bytes);
	for (line = data; (next = strchr(line, '\n')); line = next + 1) {
		json_t *r = json_loadb(line, (size_t)(next - line), 0, NULL);

		assert_non_null(r);
		on_record(r);
		json_decref(r);
	}
	assert_int_equal(*line, '\0');
	assert_int_equal(story.steps, 50);
	assert_string_equal(story.end, "done");
	free(data);
}

/* lhd goes away and comes back while training goes on; on_record sees no gap. */
static void every_record_survives_the_loss_of_lhd(void **state)
{
	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 20);
	for (int round = 0; round < 3; round++) {
		fake_hang_up(&lhd);
		greet();
		listen_until(step_is, story.steps + 20);
	}
	command(1, "switch", NULL);
	applied(1);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, story.applied_step + 5);
	assert_int_equal(story.attempt_steps, story.steps);
}

/* Weight decay of -999 a step: finite for a while. */
static void what_is_not_finite_is_never_applied_nor_saved(void **state)
{
	const char *const wild[] = { "optimizer.lr=100", "optimizer.weight_decay=10",
				     "optimizer.schedule=constant",
				     "optimizer.warmup_steps=0",
				     "checkpoint.every_steps=1" };
	char newest[32], want[32];

	(void)state;
	new_job(three_phases, wild, 5);
	begin(false, NULL);
	listen_until(NULL, 0);
	ended(1, 0);
	assert_string_equal(story.end, "failed");
	assert_string_equal(story.end_code, "LH_ENONFINITE");
	assert_in_range(story.steps, 1, 40);
	snprintf(want, sizeof(want), "step %d: ", (int)story.steps + 1);
	assert_non_null(strstr(story.end_text, want));
	snprintf(want, sizeof(want), "step-%010d", (int)story.steps);
	newest_checkpoint(newest);
	assert_string_equal(newest, want);
}

/* The shard was replaced after the job was checked. */
static void a_token_past_the_vocabulary_fails_the_job(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	pack("train.bin", 1000, 4000, 9);
	begin(false, NULL);
	listen_until(NULL, 0);
	ended(1, 0);
	assert_string_equal(story.end_code, "LH_EDATA");
	assert_non_null(strstr(story.end_text, "train.bin"));
	assert_non_null(strstr(story.end_text, "position"));
}

static void a_refused_worker_ends(void **state)
{
	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	launch(false, NULL);
	json_decref(fake_accept(&lhd));
	fake_send_take(&lhd, json_pack("{s:s, s:s, s:s}", "m", "refuse", "code",
				       "LH_ESTATE", "text", "the attempt is over"));
	ended(1, 0);
}

/* Two workers never share a job: the second waits for the first to end. */
static void it_waits_for_a_predecessor_that_is_ending(void **state)
{
	char *path;
	int lock;

	(void)state;
	new_job(three_phases, NULL, 0);
	path = scratch_path("1/" LH_JOB_LOCK);
	lock = lh_fs_lock(path, NULL);
	assert_true(lock >= 0);
	launch(false, NULL);
	assert_false(fake_wait(lhd.listener, 400));
	close(lock);
	greet();
	listen_until(NULL, 0);
	ended(0, 0);
	assert_int_equal(story.steps, 50);
	free(path);
}

static int run_with(char *a, char *b)
{
	char *argv[] = { NULL, a, b, NULL };

	return WEXITSTATUS(built_wait(spawn(argv, "out"), LIMIT_MS));
}

static bool out_says(const char *what)
{
	size_t bytes;
	char *out = scratch_read("out", &bytes);
	bool yes = strstr(out, what) != NULL;

	free(out);
	return yes;
}

static void the_command_line_is_checked(void **state)
{
	(void)state;
	assert_int_equal(run_with(NULL, NULL), 2);
	assert_true(out_says("usage:"));
	assert_int_equal(run_with("--attempt", NULL), 2);
	assert_int_equal(run_with("--fly", "x"), 2);
	assert_int_equal(run_with("--attempt", "/no/such/attempt"), 2);
	assert_true(out_says("/no/such/attempt"));
	assert_int_equal(run_with("--help", NULL), 0);
	assert_true(out_says("--sample"));
	assert_int_equal(run_with("--attempt", scratch_dir), 1);
	assert_true(out_says(LH_ATTEMPT_START));
}

static void a_checkpoint_can_be_sampled(void **state)
{
	const char args[] = "{\"prompt\": \"int \", \"max_tokens\": 6, \"seed\": 3}";
	char *path = scratch_path("1/" LH_JOB_CHECKPOINTS "/step-0000000050");
	char *file = lh_asprintf("%s/params.safetensors", path), *first, *again;
	size_t bytes;

	(void)state;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, NULL);
	scratch_write("stdin", args, strlen(args));
	assert_int_equal(run_with("--sample", path), 0);
	first = scratch_read("out", &bytes);
	assert_non_null(strstr(first, "\"piece\""));
	assert_non_null(strstr(first, "\"result\":{"));
	assert_non_null(strstr(first, "\"step\":50"));
	assert_int_equal(run_with("--sample", path), 0);
	again = scratch_read("out", &bytes);
	assert_string_equal(first, again);
	scratch_write("stdin", "nonsense", 8);
	assert_int_equal(run_with("--sample", path), 1);
	assert_true(out_says("LH_EPARSE"));
	scratch_write("stdin", args, strlen(args));
	remove(file);
	assert_int_equal(run_with("--sample", path), 1);
	assert_true(out_says("LH_ENOTFOUND"));
	free(first);
	free(again);
	free(file);
	free(path);
}

#define WORKER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORKER_TEST(a_job_runs_to_its_end),
		WORKER_TEST(the_same_job_has_the_same_losses),
		WORKER_TEST(a_killed_worker_repeats_its_losses_to_the_last_bit),
		WORKER_TEST(a_switch_is_applied_at_a_boundary_and_replayed_there),
		WORKER_TEST(replayed_commands_go_by_their_steps),
		WORKER_TEST(a_command_that_a_checkpoint_holds_is_not_applied_again),
		WORKER_TEST(a_pause_keeps_a_checkpoint_and_commands_work),
		WORKER_TEST(a_wrong_call_is_an_error_and_no_harm),
		WORKER_TEST(a_cancelled_job_keeps_a_checkpoint),
		WORKER_TEST(stopped_by_command_or_signal_it_goes_on_where_it_was),
		WORKER_TEST(a_paused_worker_can_be_stopped),
		WORKER_TEST(without_lhd_it_finishes_its_job),
		WORKER_TEST(every_record_survives_the_loss_of_lhd),
		WORKER_TEST(what_is_not_finite_is_never_applied_nor_saved),
		WORKER_TEST(a_token_past_the_vocabulary_fails_the_job),
		WORKER_TEST(a_refused_worker_ends),
		WORKER_TEST(it_waits_for_a_predecessor_that_is_ending),
		WORKER_TEST(the_command_line_is_checked),
		WORKER_TEST(a_checkpoint_can_be_sampled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
