/* test_power_cut.c: checkpoints and records, whenever the power goes: after each
 * call that writes them and whatever the disk had kept of what was not synced, what
 * was promised is there, whole, and it can be gone on from.
 *
 * Bugs are planted and must be found: here by a sync that is forgotten, and by
 * tests/crash in the product's own code (LH_PLANT, in a build with failpoints). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../power.h"
#include "base/log.h"
#include "saved.h"
#include "train/saver.h"
#include "train/spool.h"

enum { MOMENTS = 64, LINES = 8 };

/* What must be true from one moment on. */
static struct moment {
	int64_t newest[LINES];  /* what may be loaded: versions, see save() */
	int newest_count;
	bool none;              /* nothing was promised yet */
	int64_t there[LINES];   /* steps of checkpoints that must be there, whole */
	int there_count;
	int64_t pinned;         /* step, 0 none */
	int64_t records;        /* 1 .. this one must be in the spool */
} moments[MOMENTS];
static int moment_count;

/* A version is a step and what tells it from another of that step. */
static int64_t step_of(int64_t version)
{
	return version / 10;
}

static int keep;
static int64_t keep_every;

static int setup(void **state)
{
	lh_log_set_level(LH_LOG_ERROR + 1);
	keep = 1;
	keep_every = 0;
	saved_ranks = 1;
	memset(moments, 0, sizeof(moments));
	moments[0].none = true;
	moment_count = 1;
	return saved_setup(state, &saved_least);
}

static int teardown(void **state)
{
	power_release();
	return saved_teardown(state);
}

/* ---- what is promised ------------------------------------------------------ */

/* A copy of the last moment, to be changed; in force with power_moment. */
static struct moment *next_moment(void)
{
	assert_true(moment_count < MOMENTS);
	moments[moment_count] = moments[moment_count - 1];
	return &moments[moment_count++];
}

static void in_force(void)
{
	power_moment(moment_count - 1);
}

static void promise_newest(int64_t version)
{
	struct moment *m = next_moment();

	m->newest[0] = version;
	m->newest_count = 1;
	m->none = false;
	in_force();
}

/* Steps up to 0. */
static void promise_there(const int64_t *steps)
{
	struct moment *m = next_moment();

	for (m->there_count = 0; *steps; steps++)
		m->there[m->there_count++] = *steps;
	in_force();
}

/* ---- what is done ---------------------------------------------------------- */

static void fill(int64_t version)
{
	int64_t n = lh_model_param_count(model);
	float *x = lh_alloc((size_t)n * 4);

	for (int s = LH_STATE_PARAM; s <= LH_STATE_MOMENT2; s++) {
		for (int64_t i = 0; i < n; i++)
			x[i] = (float)(version * 1000 + s * 100 + i % 100);
		lh_model_write(model, (enum lh_model_state)s, 0, n, x);
	}
	free(x);
}

static bool holds(int64_t version)
{
	int64_t n = lh_model_param_count(model);
	float *x = lh_alloc((size_t)n * 4);
	bool same = true;

	for (int s = LH_STATE_PARAM; s <= LH_STATE_MOMENT2; s++) {
		lh_model_read(model, (enum lh_model_state)s, 0, n, x, NULL);
		for (int64_t i = 0; i < n; i++)
			same = same && x[i] == (float)(version * 1000 + s * 100 + i % 100);
	}
	free(x);
	return same;
}

static void save_in(const char *dir, int64_t version)
{
	struct lh_progress p = { .step = step_of(version), .cursor = version };
	struct lh_err err = LH_ERR_INIT;
	int64_t bytes;
	char *path;

	fill(version);
	if (saved_write(dir, &p, &path, &bytes, &err))
		fail_msg("%s", err.text);
	free(path);
}

/* From the call on the new one may be loaded, from the return on it must be. */
static void save(int64_t version)
{
	struct moment *m = next_moment();

	m->newest[m->newest_count++] = version;
	in_force();
	save_in(scratch_dir, version);
	promise_newest(version);
}

static void retain(void)
{
	lh_checkpoint_retain(scratch_dir, INT64_MAX, keep, keep_every, -1);
}

/* ---- what is left ---------------------------------------------------------- */

static int damaged;

static void on_damaged(void *arg, const char *path, const struct lh_err *why)
{
	(void)arg;
	if (!damaged++)
		snprintf(power_text, sizeof(power_text), "'%s' is damaged: %s", path, why->text);
}

static bool say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(power_text, sizeof(power_text), fmt, ap);
	va_end(ap);
	return false;
}

static bool is_among(const int64_t *list, int n, int64_t v)
{
	while (n-- > 0)
		if (list[n] == v)
			return true;
	return false;
}

static void on_verified(void *arg, const char *file, int64_t bytes, const struct lh_err *why)
{
	(void)arg, (void)file, (void)bytes, (void)why;
}

static bool check_one(const char *dir, int64_t step, bool pinned)
{
	char *path = lh_checkpoint_path(dir, step);
	char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, path);
	struct lh_err err = LH_ERR_INIT;
	bool good = !lh_manifest_verify(path, on_verified, NULL, &err) ||
		    say("step %d: %s", (int)step, err.text);

	if (good && pinned && !lh_fs_exists(mark))
		good = say("step %d is not pinned any more", (int)step);
	free(mark);
	free(path);
	return good;
}

static bool is_there(const char *dir, int64_t step)
{
	char *path = lh_checkpoint_path(dir, step);
	bool there = lh_fs_exists(path);

	free(path);
	return there;
}

/* A job goes on from it: saves, retains, loads. */
static bool goes_on(const char *dir, int64_t version)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	char *path;
	int rc;

	save_in(dir, version);
	lh_checkpoint_retain(dir, INT64_MAX, keep, keep_every, -1);
	rc = lh_checkpoint_load_newest(dir, INT64_MAX, model, &p, &path, on_damaged, NULL, &err);
	if (!rc)
		free(path);
	if (rc || p.cursor != version || damaged)
		return damaged ? false : say("what was saved next is not loaded");
	return true;
}

static bool check_checkpoints(const char *dir, int at)
{
	const struct moment *m = &moments[at];
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	char *path;
	bool good;
	int rc;

	damaged = 0;
	rc = lh_checkpoint_load_newest(dir, INT64_MAX, model, &p, &path, on_damaged, NULL, &err);
	if (!rc)
		free(path);
	if (damaged)
		return false;
	if (rc)
		good = m->none || say("no checkpoint is left");
	else
		good = (is_among(m->newest, m->newest_count, p.cursor) && holds(p.cursor)) ||
		       say("version %d was loaded", (int)p.cursor);
	for (int i = 0; good && i < m->there_count; i++)
		good = check_one(dir, m->there[i], m->there[i] == m->pinned);
	for (int64_t step = 1; good && step < 10; step++)
		good = !is_there(dir, step) || check_one(dir, step, false);
	if (!good || power_forget) /* a bug shows, or does not, before */
		return good;
	return goes_on(dir, rc ? 19 : (step_of(p.cursor) + 1) * 10 + 9);
}

/* Runs a story and tries every cut of it. */
static int try_all(void (*story)(void), power_checker check)
{
	int n;

	power_record(scratch_dir);
	story();
	n = power_check(check);
	power_release();
	return n;
}

static void must_be_good(void (*story)(void), power_checker check, int at_least)
{
	int n = try_all(story, check);

	if (n < 0)
		fail_msg("%s", power_text);
	assert_in_range(n, at_least, 1000000); /* that something was tried */
}

/* ---- checkpoints ----------------------------------------------------------- */

static void saves_and_keeps(void)
{
	for (int64_t step = 1; step <= 4; step++) {
		save(step * 10 + 1);
		promise_there((const int64_t[]){ step, keep > 1 ? step - 1 : 0, 0 });
		retain();
	}
}

/* Each of two ranks writes its part. */
static void ranks_save(void)
{
	saved_ranks = 2;
	for (int64_t step = 1; step <= 2; step++) {
		save(step * 10 + 1);
		promise_there((const int64_t[]){ step, 0 });
		retain();
	}
}

static void a_cut_leaves_the_old_one_or_the_new_one_of_ranks(void **state)
{
	(void)state;
	must_be_good(ranks_save, check_checkpoints, 100);
}

static void a_cut_leaves_the_old_one_or_the_new_one(void **state)
{
	(void)state;
	must_be_good(saves_and_keeps, check_checkpoints, 100);
}

static void retention_keeps_two(void **state)
{
	(void)state;
	keep = 2;
	must_be_good(saves_and_keeps, check_checkpoints, 100);
}

/* Multiples of two stay, and the pinned first one. */
static void pins_and_multiples(void)
{
	char *first = lh_checkpoint_path(scratch_dir, 1);
	struct lh_err err;
	struct moment *m;

	keep_every = 2;
	save(11);
	assert_int_equal(lh_checkpoint_pin(first, &err), 0);
	m = next_moment();
	m->pinned = 1;
	m->there[m->there_count++] = 1;
	in_force();
	save(12); /* takes the place of the pinned one */
	for (int64_t step = 2; step <= 5; step++) {
		save(step * 10 + 1);
		promise_there((const int64_t[]){ 1, step > 3 ? 2 : 0, step > 4 ? 4 : 0, 0 });
		retain();
	}
	free(first);
}

static void pinned_ones_and_multiples_are_never_lost(void **state)
{
	(void)state;
	must_be_good(pins_and_multiples, check_checkpoints, 100);
}

/* Three of a line, then back to the first, written anew: until that is said to be
 * done, a lost worker may find the old line, and comes to the same verdict. */
static void goes_back(void)
{
	char *second = lh_checkpoint_path(scratch_dir, 2);
	struct lh_err err = LH_ERR_INIT;
	struct moment *m;

	for (int64_t step = 1; step <= 3; step++)
		save(step * 10 + 1);
	assert_int_equal(lh_checkpoint_pin(second, &err), 0);
	m = next_moment();
	m->newest[0] = 31;
	m->newest[1] = 21;
	m->newest[2] = 12;
	m->newest_count = 3;
	in_force();
	save_in(scratch_dir, 12);
	assert_int_equal(lh_checkpoint_remove_after(scratch_dir, 1, &err), 0);
	promise_newest(12);
	free(second);
}

static void what_was_left_does_not_come_back(void **state)
{
	(void)state;
	keep = 3;
	must_be_good(goes_back, check_checkpoints, 100);
}

/* ---- records --------------------------------------------------------------- */

static bool check_spool(const char *dir, int64_t last)
{
	char *path = lh_asprintf("%s/spool.jsonl", dir), *text = NULL, *line, *end;
	int64_t seq = 0;
	size_t bytes;

	if (!lh_fs_read(path, 64 << 20, &text, &bytes, NULL))
		for (line = text; (end = memchr(line, '\n', bytes - (size_t)(line - text)));
		     line = end + 1) {
			json_t *r = json_loadb(line, (size_t)(end - line), 0, NULL);
			int64_t n = json_integer_value(json_object_get(r, "seq"));

			/* As lhd reads it: from its first one on, without a gap. */
			if (n && (!seq || n == seq + 1))
				seq = n;
			json_decref(r);
		}
	free(text);
	free(path);
	return seq >= last || say("records end at %d, %d were safe", (int)seq, (int)last);
}

static bool check_records(const char *dir, int at)
{
	return check_spool(dir, moments[at].records);
}

static void promise_records(int64_t last)
{
	next_moment()->records = last;
	in_force();
}

static void spool_add(struct lh_spool *s, int64_t pad)
{
	char *text = lh_calloc((size_t)pad + 1, 1);
	struct lh_err err = LH_ERR_INIT;
	json_t *r;

	memset(text, 'x', (size_t)pad);
	r = json_pack("{s:s, s:s}", "t", "step", "pad", text);
	assert_int_equal(lh_spool_append(s, r, &err), 0);
	json_decref(r);
	free(text);
}

/* Adds, syncs, forgets what is acknowledged, which makes a new file once. */
static void spools(void)
{
	char *path = scratch_path("spool.jsonl");
	struct lh_err err = LH_ERR_INIT;
	struct lh_spool *s;

	assert_int_equal(lh_spool_open(&s, path, 0, &err), 0);
	for (int i = 1; i <= 9; i++) {
		spool_add(s, i == 1 ? LH_SPOOL_SLACK_BYTES : 40);
		if (i % 3)
			continue;
		assert_int_equal(lh_spool_sync(path, &err), 0);
		promise_records(i);
		lh_spool_ack(s, i - 1); /* at 3: all but a little */
	}
	lh_spool_close(s);
	free(path);
}

static void records_outlive_a_cut_once_they_were_synced(void **state)
{
	(void)state;
	must_be_good(spools, check_records, 30);
}

/* A worker without lhd: posts a record a step and saves now and then. */
static void trains(void)
{
	char *path = scratch_path("spool.jsonl"), *socket = scratch_path("none.sock");
	struct lh_link_config lc = { .job = 1, .attempt = 1, .token = "t", .spool = path,
				     .socket = socket };
	struct lh_saver_config sc = { .ops = &lh_ops_cpu, .dev = dev, .model = model,
				      .dir = scratch_dir, .spec = spec, .origin = origin,
				      .keep = 2 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_saver *saver;
	struct lh_saved saved;

	assert_int_equal(lh_link_open(&sc.link, &lc, &err), 0);
	assert_int_equal(lh_saver_new(&saver, &sc, &err), 0);
	for (int64_t step = 1; step <= 12; step++) {
		struct lh_progress p = { .step = step, .cursor = step * 10 + 1 };

		lh_link_post_take(sc.link, json_pack("{s:s, s:I}", "t", "step", "step",
						     (json_int_t)step));
		if (step % 4)
			continue;
		fill(p.cursor);
		assert_int_equal(lh_saver_begin(saver, &p, "interval", &err), 0);
		assert_true(lh_saver_take(saver, true, &saved));
		assert_int_equal(saved.rc, 0);
		free(saved.path);
	}
	lh_saver_free(saver);
	lh_link_close(sc.link, 0);
	free(path);
	free(socket);
}

static bool check_both(const char *dir, int at)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p = { 0 };
	char *path;

	(void)at;
	damaged = 0;
	if (lh_checkpoint_load_newest(dir, INT64_MAX, model, &p, &path, on_damaged, NULL, &err))
		return !damaged;
	free(path);
	return !damaged && check_spool(dir, p.step);
}

static void no_checkpoint_is_there_before_the_records_of_its_steps(void **state)
{
	(void)state;
	must_be_good(trains, check_both, 50);
}

/* ---- bugs ------------------------------------------------------------------ */

/* Every sync of such a path is forgotten, one at a time: each must be noticed, but
 * `spare` of them (a directory's entry is synced when it is made and when it gets
 * its name). */
static const struct bug {
	const char *path;
	void (*story)(void);
	power_checker check;
	int spare;
} bugs[] = {
	{ "*/params.safetensors", saves_and_keeps, check_checkpoints, 0 },
	{ "*/moments.safetensors", saves_and_keeps, check_checkpoints, 0 },
	{ "*/params-00001-of-00002.safetensors", ranks_save, check_checkpoints, 0 },
	{ "*/moments-00002-of-00002.safetensors", ranks_save, check_checkpoints, 0 },
	{ "step-*.tmp", ranks_save, check_checkpoints, 0 },
	{ "*/manifest.json.tmp", saves_and_keeps, check_checkpoints, 0 },
	{ "step-*.tmp", saves_and_keeps, check_checkpoints, 0 }, /* the directory */
	{ "", saves_and_keeps, check_checkpoints, 4 },
	{ "", goes_back, check_checkpoints, 4 },
	{ "step-0000000001", pins_and_multiples, check_checkpoints, 0 },
	{ "spool.jsonl", spools, check_records, 0 },
	{ "spool.jsonl.tmp", spools, check_records, 1 }, /* at its end */
	{ "", spools, check_records, 1 },
	{ "spool.jsonl", trains, check_both, 1 },
};

static void check_bug(const struct bug *b, void **state)
{
	int noticed = 0, tried = 0;

	power_forget = b->path;
	do {
		power_forget_nth = ++tried;
		noticed += try_all(b->story, b->check) < 0;
		teardown(state);
		assert_int_equal(setup(state), 0);
	} while (power.matches > tried);
	power_forget = NULL;
	if (noticed != tried - b->spare)
		fail_msg("of %d syncs of '%s', %d were missed when forgotten", tried,
			 b->path, noticed);
}

static void a_sync_that_is_forgotten_is_noticed(void **state)
{
	for (size_t i = 0; i < sizeof(bugs) / sizeof(*bugs); i++)
		check_bug(&bugs[i], state);
}

#define POWER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		POWER_TEST(a_cut_leaves_the_old_one_or_the_new_one),
		POWER_TEST(a_cut_leaves_the_old_one_or_the_new_one_of_ranks),
		POWER_TEST(retention_keeps_two),
		POWER_TEST(pinned_ones_and_multiples_are_never_lost),
		POWER_TEST(what_was_left_does_not_come_back),
		POWER_TEST(records_outlive_a_cut_once_they_were_synced),
		POWER_TEST(no_checkpoint_is_there_before_the_records_of_its_steps),
		POWER_TEST(a_sync_that_is_forgotten_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
