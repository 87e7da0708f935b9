/* test_team.c: ranks that obey: a step is as with one of them, may be left off, and what
 * fails on one is told by all; a checkpoint goes from any number of ranks to any other.
 *
 * Each case is run by 2 or 4 processes in a directory of theirs: rank 0 acts, the others
 * follow. What they are compared with rank 0 makes by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <sys/stat.h>

#include "../ranks.h"
#include "../scratch.h"
#include "base/io.h"
#include "jobs/jobfile.h"
#include "join/launcher.h"
#include "lighthouse/shard.h"
#include "train/checkpoint.h"
#include "train/sample.h"
#include "train/team.h"

#define C (&(struct lh_comm){ .rank = 0 }) /* what RANKS_CHECK names: rank 0 */

enum { T = 64, WINDOWS = 16, VOCAB = 257, BAD = 290 };

static const char yaml[] =
	"name: team\nthreads: 1\n"
	"model: {vocab: 300, dim: 16, layers: 2, heads: 2, ffn_dim: 24, init_std: 0.1}\n"
	"data: {train: train.bin, validation: train.bin, tokenizer: bytes, seq_len: 64}\n"
	"evaluation: {sequences: 7, passkey: {samples: 9, from_tokens: 64}}\n"
	"batch: {sequences: 4, micro_sequences: 1}\n"
	"optimizer: {lr: 2e-3}\n"
	"phases:\n"
	"  - {name: a, attention: full, until: {steps: 200}}\n"
	"  - {name: b, attention: lighthouse, levels: 2, pool: 2, topk: 16, tile: 2,\n"
	"     until: {steps: 200}}\n";

/* ---- the fixture, in the process of the tests ------------------------------ */

/* WINDOWS of them; an id that the model does not have in window `bad`. */
static void pack(int bad)
{
	char *path = scratch_path("train.bin");
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	assert_int_equal(lh_shard_writer_new(&w, path, VOCAB + 100, VOCAB - 1, &err), 0);
	for (int32_t i = 0; i <= WINDOWS * T; i++) {
		int32_t id = i == bad * T + 5 ? BAD : i * i % 251;

		assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
	}
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	free(path);
}

static void set_number(const char *name, int value)
{
	char number[12];

	snprintf(number, sizeof(number), "%d", value);
	setenv(name, number, 1);
}

/* In a directory of an attempt of its own: ranks meet on its board. `shared` of them have
 * each sequence together. */
static void run_shared(int n, enum lh_divide divide, int shared, const char *name)
{
	static int attempts;
	char *attempt = lh_asprintf("%s/attempt-%d", scratch_dir, ++attempts);

	set_number("TEST_DIVIDE", divide);
	set_number("TEST_CONTEXT", shared);
	assert_int_equal(mkdir(attempt, 0700), 0);
	setenv("TEST_ATTEMPT", attempt, 1);
	ranks_run(n, name);
	free(attempt);
}

static void run(int n, enum lh_divide divide, const char *name)
{
	run_shared(n, divide, 1, name);
}

/* ---- in the ranks ---------------------------------------------------------- */

static struct lh_job job;
static struct lh_team_config config;
static struct lh_team team;
static int context; /* ranks that share a sequence */

static const struct lh_adamw opt = { .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f,
				     .eps = 1e-8f, .grad_scale = 1, .step = 1 };

/* With the ranks that there are, or by itself: 1. */
static void open_team(int size)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;

	job.devices = size;
	job.context = size > 1 ? context : 1;
	config.size = size;
	RANKS_CHECK(!lh_team_open(&team, &config, &err));
	team.modes[0].recompute = team.modes[1].recompute = LH_RECOMPUTE_NONE;
	RANKS_CHECK(!lh_team_make_model(&team, &err));
	lh_team_init(&team, 5);
}

/* Every micro-batch of the step at a place of the data. */
static int add_up(int64_t cursor, struct lh_err *err)
{
	int rc = 0;

	lh_team_begin(&team, 1);
	for (int64_t i = 0; !rc && i < team.share; i += team.micro)
		rc = lh_team_micro(&team, 0, cursor, i, 1.0f / (4 * T), err);
	return rc;
}

static void make_step(int64_t cursor, float *loss, float *norm)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;

	RANKS_CHECK(!add_up(cursor, &err));
	RANKS_CHECK(!lh_team_measure(&team, loss, norm, &err));
	lh_team_apply(&team, &opt);
}

/* Whether two are the same but for rounding. */
static bool is_near(double x, double y)
{
	return fabs(x - y) <= 1e-5 * fabs(y);
}

static void evaluate_all(struct lh_losses *sum)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;

	memset(sum, 0, sizeof(*sum));
	lh_positions_init(&sum->by_place, T);
	for (int64_t i = 0; i < job.evaluation.sequences; i += lh_team_round(&team))
		RANKS_CHECK(!lh_team_evaluate(&team, 0, &lh_attention_full, i, sum, &err));
}

static void check_step(int size)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	float loss[2][3], norm[2][3];
	struct lh_losses sum[2];

	for (int k = 0; k < 2; k++) { /* alone, and together */
		open_team(k ? size : 1);
		for (int i = 0; i < 3; i++)
			make_step(4 * i, &loss[k][i], &norm[k][i]);
		/* One that is left off leaves nothing behind. */
		lh_team_begin(&team, 9);
		RANKS_CHECK(!lh_team_micro(&team, 0, 0, 0, 1, &err));
		evaluate_all(&sum[k]);
		lh_team_close(&team);
	}
	for (int i = 0; i < 3; i++) {
		RANKS_CHECK(fabsf(loss[1][i] - loss[0][i]) < 1e-5f * loss[0][i]);
		RANKS_CHECK(fabsf(norm[1][i] - norm[0][i]) < 1e-4f * norm[0][i]);
	}
	RANKS_CHECK(sum[0].tokens == 7 * T && sum[1].tokens == sum[0].tokens);
	RANKS_CHECK(is_near(sum[1].nats, sum[0].nats));
	for (int i = 0; i < sum[0].by_place.count; i++) {
		RANKS_CHECK(sum[1].by_place.tokens[i] == sum[0].by_place.tokens[i]);
		RANKS_CHECK(is_near(sum[1].by_place.nats[i], sum[0].by_place.nats[i]));
	}
}

/* Each sample is asked once, and those of a last round that is not whole count alone. */
static void check_passkeys(int size)
{
	struct lh_team_passkey p = { .mode = &lh_attention_full, .context = 64 };
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	int64_t found[2] = { 0 };

	for (int k = 0; k < 2; k++) {
		open_team(k ? size : 1);
		RANKS_CHECK(lh_team_look_round(&team) == (k ? size / context : 1));
		for (p.sample = 0; p.sample < 9; p.sample += lh_team_look_round(&team))
			RANKS_CHECK(!lh_team_passkey(&team, &p, &found[k], &err));
		lh_team_close(&team);
	}
	RANKS_CHECK(found[0] == found[1] && found[0] > 0 && found[0] < 9);
}

/* What only rank 0 does: the others go along, and train on. */
static void check_sample(int size)
{
	struct lh_sample_args args = { .prompt = "a", .prompt_bytes = 1, .max_tokens = 40,
				       .temperature = 1, .top_p = 1, .seed = 7 };
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	json_t *result[2][2];
	float loss, norm;

	for (int k = 0; k < 2; k++) {
		open_team(k ? size : 1);
		for (int i = 0; i < 2; i++) {
			lh_team_lead(&team, true);
			RANKS_CHECK(!lh_sample_run(team.model, &job, 0, &args, NULL, NULL,
						   &result[k][i], &err));
			lh_team_lead(&team, false);
			make_step(4 * i, &loss, &norm);
		}
		lh_team_close(&team);
	}
	RANKS_CHECK(json_integer_value(json_object_get(result[0][0], "tokens")) > 9);
	RANKS_CHECK(json_equal(result[1][0], result[0][0]));
	RANKS_CHECK(json_integer_value(json_object_get(result[1][1], "tokens")) > 9);
}

struct looked {
	float whole[T], own[T];
	int32_t choice[2 * 2 * 2 * T]; /* of two layers and heads */
	int chosen;
};

static void see(void *arg, int layer, const int32_t *index)
{
	struct looked *l = arg;
	int n = 2 * (int)lh_lighthouse_selected(&team.modes[1].geometry);

	(void)layer;
	memcpy(l->choice + l->chosen, index, (size_t)n * sizeof(*index));
	l->chosen += n;
}

/* What rank 0 has chosen to look at: whole sequences, and what fits one rank. */
static void look(struct looked *l)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;

	*l = (struct looked){ .chosen = 0 };
	for (int i = 0; i < T; i++) {
		team.tokens[i] = (7 * i + 5) % VOCAB;
		team.targets[i] = i % 3 ? (7 * i + 12) % VOCAB : -1;
	}
	RANKS_CHECK(!lh_team_loss(&team, &lh_attention_full, 1, T, &err));
	memcpy(l->whole, team.row_loss, sizeof(l->whole));
	RANKS_CHECK(!lh_team_loss(&team, &lh_attention_full, 1, T / 4, &err));
	memcpy(l->own, team.row_loss, T / 4 * sizeof(*l->own));
	RANKS_CHECK(!lh_team_selection(&team, &team.modes[1], 1, see, l, &err));
}

static void check_looks(int size)
{
	const struct lh_comm *c = C;
	struct looked one, all;

	open_team(1);
	look(&one);
	lh_team_close(&team);
	open_team(size);
	look(&all);
	lh_team_close(&team);
	for (int i = 0; i < T; i++) {
		RANKS_CHECK(fabsf(all.whole[i] - one.whole[i]) <= 1e-5f * one.whole[i]);
		RANKS_CHECK(fabsf(all.own[i] - one.own[i]) <= 1e-5f * one.own[i]);
	}
	RANKS_CHECK(one.whole[1] > 0 && one.own[1] > 0 && one.chosen > 0);
	RANKS_CHECK(one.chosen == all.chosen);
	RANKS_CHECK(!memcmp(one.choice, all.choice, sizeof(one.choice)));
}

/* The first rank that comes to the bad window in the step at a place; -1: none does. */
static int rank_that_meets(int64_t cursor, int size)
{
	struct lh_err err = LH_ERR_INIT;
	int32_t ids[2 * T];

	for (int i = 0; i < 4; i++)
		if (lh_data_train(&team.data, cursor + i, ids, ids + T, NULL, &err))
			return i / (4 * context / size) * context;
	return -1;
}

/* A round in which a rank cannot read is an error of all, the others are as they were. */
static void check_bad_evaluation(void)
{
	int64_t rounds = 0, bad = 0;
	const struct lh_comm *c = C;

	for (int64_t i = 0; i < job.evaluation.sequences; i += lh_team_round(&team)) {
		struct lh_err err = LH_ERR_INIT;
		struct lh_losses sum = { 0 };
		int rc;

		lh_positions_init(&sum.by_place, T);
		rc = lh_team_evaluate(&team, 0, &lh_attention_full, i, &sum, &err);
		RANKS_CHECK(rc == 0 || rc == LH_EDATA);
		rounds++;
		bad += rc != 0;
	}
	RANKS_CHECK(bad == 1 && rounds > 1);
}

/* Whatever rank it is on. */
static void check_bad_data(int size)
{
	const struct lh_comm *c = C;
	bool met[4] = { false };
	float loss, norm;

	open_team(size);
	for (int64_t cursor = 0; cursor < 100 * WINDOWS; cursor += 4) {
		struct lh_err err = LH_ERR_INIT;
		int rank = rank_that_meets(cursor, size), rc = add_up(cursor, &err);
		char who[16];

		if (!rc)
			rc = lh_team_measure(&team, &loss, &norm, &err);
		RANKS_CHECK(rc == (rank < 0 ? 0 : LH_EDATA));
		if (rank < 0)
			continue;
		met[rank] = true;
		snprintf(who, sizeof(who), "rank %d: '", rank);
		RANKS_CHECK(strstr(err.text, "token id 290 at position"));
		RANKS_CHECK(!rank || !strncmp(err.text, who, strlen(who)));
	}
	for (int r = 0; r < size; r += context)
		RANKS_CHECK(met[r]);
	check_bad_evaluation();
	lh_team_close(&team);
}

/* Where ranks of another number find them. */
static char *checkpoints(void)
{
	return lh_asprintf("%s/../checkpoints", getenv("TEST_ATTEMPT"));
}

static void open_saver(const char *dir)
{
	static json_t *empty;
	struct lh_saver_config sc = { .dir = dir, .keep = 2 };
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;

	sc.spec = sc.origin = empty = empty ? empty : json_object();
	RANKS_CHECK(!lh_team_open_saver(&team, &sc, &err));
}

static struct lh_saved save(int64_t step)
{
	struct lh_progress p = { .step = step };
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	struct lh_saved saved;

	RANKS_CHECK(!lh_team_is_saving(&team));
	RANKS_CHECK(!lh_team_begin_save(&team, &p, "interval", &err));
	RANKS_CHECK(lh_team_is_saving(&team));
	RANKS_CHECK(lh_team_take_save(&team, true, &saved));
	RANKS_CHECK(!lh_team_is_saving(&team));
	return saved;
}

static void on_verified(void *files, const char *file, int64_t bytes, const struct lh_err *why)
{
	const struct lh_comm *c = C;

	RANKS_CHECK(bytes > 0 && !why);
	*(int *)files += !strncmp(file, "params", 6);
}

/* Each rank wrote files of its own. */
static void check_files(const char *path, int size)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	int files = 0;

	RANKS_CHECK(!lh_manifest_verify(path, on_verified, &files, &err));
	RANKS_CHECK(files == size);
}

static void check_save(int size)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	char *dir = checkpoints(), *path;
	struct lh_saved saved;
	float loss, norm;

	open_team(size);
	open_saver(dir);
	for (int i = 0; i < 3; i++)
		make_step(4 * i, &loss, &norm);
	RANKS_CHECK(!lh_team_begin_save(&team, &(struct lh_progress){ .step = 3 }, "", &err));
	make_step(12, &loss, &norm); /* the next one, to be compared with */
	while (!lh_team_take_save(&team, false, &saved))
		sched_yield();
	RANKS_CHECK(!saved.rc && saved.step == 3 && saved.bytes > 0);
	check_files(saved.path, size);
	path = lh_asprintf("%s/loss", dir);
	RANKS_CHECK(!lh_fs_write_atomic(path, &loss, sizeof(loss), &err));
	lh_team_close(&team);
}

/* All of a checkpoint, read by one rank. */
static void read_alone(const char *path, struct lh_snapshot *s)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;

	RANKS_CHECK(!lh_checkpoint_load(path, team.model, &p, true, &err));
	RANKS_CHECK(!lh_snapshot_new(s, &lh_ops_cpu, team.dev, team.model, 0, 1, &err));
	RANKS_CHECK(!lh_snapshot_take(s, &err));
}

/* What is taken is what was there, to the bit: what these ranks save of it. */
static void load_and_compare(int size, const char *path)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	char *dir = checkpoints();
	char *again = lh_asprintf("%s/again", getenv("TEST_ATTEMPT"));
	char *file = lh_asprintf("%s/loss", dir), *was;
	struct lh_snapshot one, other;
	struct lh_saved saved;
	struct lh_progress p;
	float loss, norm;
	size_t bytes;

	open_team(size);
	RANKS_CHECK(!lh_checkpoint_load(path, team.model, &p, true, &err));
	RANKS_CHECK(!lh_team_load(&team, path, true, &err));
	open_saver(again);
	saved = save(3);
	RANKS_CHECK(!saved.rc);
	make_step(12, &loss, &norm);
	RANKS_CHECK(!lh_fs_read(file, 64, &was, &bytes, &err));
	RANKS_CHECK(fabsf(loss - *(float *)was) < 1e-6f * loss);
	lh_team_close(&team);

	open_team(1);
	read_alone(path, &one);
	read_alone(saved.path, &other);
	for (int i = 0; i < 3; i++)
		RANKS_CHECK(!memcmp(one.state[i], other.state[i], (size_t)one.count * 4));
	lh_team_close(&team);
}

static void check_load(int size)
{
	load_and_compare(size, lh_checkpoint_path(checkpoints(), 3));
}

/* Of a directory that rank 0 alone is in, as others are on other hosts. */
static void check_load_unseen(int size)
{
	const struct lh_comm *c = C;

	RANKS_CHECK(!chdir(lh_checkpoint_path(checkpoints(), 3)));
	load_and_compare(size, ".");
}

/* Ranks that do not see where it is to be have no part in it, and it is whole. */
static void check_save_unseen(int size)
{
	const struct lh_comm *c = C;
	char *path = lh_checkpoint_path(checkpoints(), 3);
	struct lh_snapshot one, other;
	struct lh_err err = LH_ERR_INIT;
	struct lh_saved saved;

	RANKS_CHECK(!chdir(getenv("TEST_ATTEMPT")) && !mkdir("unseen", 0700));
	RANKS_CHECK(!chdir("unseen"));
	open_team(size);
	RANKS_CHECK(!lh_team_load(&team, path, true, &err));
	open_saver(".");
	saved = save(3);
	RANKS_CHECK(!saved.rc);
	lh_team_close(&team);
	RANKS_CHECK(!lh_fs_exists("step-0000000003/params-00001-of-00002.safetensors"));

	open_team(1);
	read_alone(path, &one);
	read_alone("step-0000000003", &other);
	for (int i = 0; i < 3; i++)
		RANKS_CHECK(!memcmp(one.state[i], other.state[i], (size_t)one.count * 4));
	lh_team_close(&team);
}

/* Weights alone, as a job begins with those of another. */
static void check_load_weights(int size)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	char *path = lh_checkpoint_path(checkpoints(), 3);
	char *again = lh_asprintf("%s/again", getenv("TEST_ATTEMPT"));
	struct lh_saved saved;
	struct lh_progress p;
	struct lh_snapshot s;
	int64_t moved = 0;

	open_team(size);
	RANKS_CHECK(!lh_checkpoint_load(path, team.model, &p, false, &err));
	RANKS_CHECK(!lh_team_load(&team, path, false, &err));
	open_saver(again);
	saved = save(3);
	RANKS_CHECK(!saved.rc);
	lh_team_close(&team);
	open_team(1);
	read_alone(saved.path, &s);
	for (int64_t i = 0; i < s.count; i++)
		moved += s.state[LH_STATE_MOMENT1][i] != 0 || s.state[LH_STATE_MOMENT2][i] != 0;
	RANKS_CHECK(s.count == lh_model_param_count(team.model) && !moved);
	lh_snapshot_free(&s);
	lh_team_close(&team);
}

/* Of the ranks the last one's disk is full while a file says so. */
static char *full_mark(void)
{
	return lh_asprintf("%s/full", getenv("TEST_ATTEMPT"));
}

static ssize_t write_if_not_full(int fd, const void *data, size_t bytes, off_t at)
{
	char *mark = full_mark();
	bool full = lh_fs_exists(mark);

	free(mark);
	if (!full)
		return lh_io_posix.pwrite(fd, data, bytes, at);
	errno = ENOSPC;
	return -1;
}

/* A save that one rank cannot make is none, leaves nothing, and the next one is whole. */
static void check_no_save(int size)
{
	char *dir = lh_asprintf("%s/again", getenv("TEST_ATTEMPT"));
	char *mark = full_mark(), who[32];
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;
	struct lh_saved saved;
	char *path;

	open_team(size);
	open_saver(dir);
	RANKS_CHECK(!lh_fs_write_atomic(mark, "", 0, &err));
	saved = save(7);
	snprintf(who, sizeof(who), "rank %d: ", size - 1);
	RANKS_CHECK(saved.rc == LH_EIO && !strncmp(saved.err.text, who, strlen(who)));
	path = lh_checkpoint_path(dir, 7);
	RANKS_CHECK(!lh_fs_exists(path));
	RANKS_CHECK(!lh_fs_exists(lh_asprintf("%s.tmp", path)));
	RANKS_CHECK(!unlink(mark));
	saved = save(7);
	RANKS_CHECK(!saved.rc);
	check_files(path, size);
	/* One that nobody takes is finished all the same. */
	RANKS_CHECK(!lh_team_begin_save(&team, &(struct lh_progress){ .step = 8 }, "last", &err));
	lh_team_close(&team);
	check_files(lh_checkpoint_path(dir, 8), size);
}

/* A checkpoint that nobody can find is an error that names the first of them. */
static void check_no_load(int size)
{
	const struct lh_comm *c = C;
	struct lh_err err = LH_ERR_INIT;

	open_team(size);
	RANKS_CHECK(lh_team_load(&team, "/nowhere", true, &err) == LH_ENOTFOUND);
	RANKS_CHECK(!strncmp(err.text, "rank 0: checkpoint '/nowhere'", 29));
	lh_team_close(&team);
}

static const struct {
	const char *name;
	void (*run)(int size);
} cases[] = { { "step", check_step }, { "bad_data", check_bad_data },
	      { "save", check_save }, { "load", check_load }, { "no_load", check_no_load },
	      { "load_unseen", check_load_unseen }, { "save_unseen", check_save_unseen },
	      { "sample", check_sample }, { "looks", check_looks }, { "no_save", check_no_save },
	      { "passkeys", check_passkeys }, { "load_weights", check_load_weights } };

static int in_rank(const char *name)
{
	const char *dir = getenv("TEST_ATTEMPT");
	char *base = lh_asprintf("%s/..", dir);
	struct lh_jobfile_source src = { .yaml = yaml, .yaml_bytes = strlen(yaml),
					 .base_dir = base };
	struct lh_err err = LH_ERR_INIT;
	struct lh_io io = lh_io_posix;
	struct lh_peers *peers;
	int size = ranks_number("PMI_SIZE"), rank, rc = 0;

	if (lh_jobfile_load(&job, &src, &err) ||
	    lh_launcher_find_own(&rank, size, environ, &err) ||
	    lh_peers_begin(&peers, dir, rank, size, &err)) {
		fprintf(stderr, "%s (%s)\n", err.text, err.hint);
		return 1;
	}
	config = (struct lh_team_config){ .job = &job, .ops = &lh_ops_cpu, .rank = rank,
					  .size = size, .host_ranks = size,
					  .peers = peers };
	job.devices = size;
	job.divide = (enum lh_divide)ranks_number("TEST_DIVIDE");
	job.context = context = ranks_number("TEST_CONTEXT");
	job.model.vocab = VOCAB; /* as if the data had changed since they were checked */
	io.pwrite = write_if_not_full;
	if (rank == size - 1)
		lh_io = &io;
	if (rank)
		rc = lh_team_follow(&config, &err);
	for (size_t i = 0; !rank && i < sizeof(cases) / sizeof(cases[0]); i++)
		if (!strcmp(cases[i].name, name))
			cases[i].run(size);
	lh_peers_leave(peers);
	return rc != 0;
}

/* ---- tests ----------------------------------------------------------------- */

static void a_step_is_that_of_one_rank(void **state)
{
	(void)state;
	pack(-1);
	run(2, LH_DIVIDE_MOMENTS, "step");
	run(4, LH_DIVIDE_GRADIENTS, "step");
	run(2, LH_DIVIDE_WEIGHTS, "step");
	run(4, LH_DIVIDE_WEIGHTS, "step");
}

static void a_step_of_shared_sequences_is_that_of_one_rank(void **state)
{
	(void)state;
	pack(-1);
	run_shared(2, LH_DIVIDE_MOMENTS, 2, "step");
	run_shared(4, LH_DIVIDE_GRADIENTS, 2, "step");
	run_shared(4, LH_DIVIDE_WEIGHTS, 2, "step");
	run_shared(4, LH_DIVIDE_MOMENTS, 4, "step");
}

static void what_rank_0_looks_at_all_ranks_do_that_have_to(void **state)
{
	(void)state;
	pack(-1);
	run(2, LH_DIVIDE_MOMENTS, "looks");
	run(2, LH_DIVIDE_WEIGHTS, "looks");
	run_shared(2, LH_DIVIDE_MOMENTS, 2, "looks");
	run_shared(4, LH_DIVIDE_WEIGHTS, 2, "looks");
}

static void hidden_digits_are_asked_for_by_all(void **state)
{
	(void)state;
	pack(-1);
	run(2, LH_DIVIDE_MOMENTS, "passkeys");
	run(4, LH_DIVIDE_WEIGHTS, "passkeys");
	run_shared(2, LH_DIVIDE_MOMENTS, 2, "passkeys");
	run_shared(4, LH_DIVIDE_WEIGHTS, 2, "passkeys");
}

static void rank_0_samples_as_it_would_alone(void **state)
{
	(void)state;
	pack(-1);
	run(2, LH_DIVIDE_GRADIENTS, "sample");
	run(2, LH_DIVIDE_WEIGHTS, "sample");
	run(4, LH_DIVIDE_WEIGHTS, "sample");
	run_shared(2, LH_DIVIDE_WEIGHTS, 2, "sample");
}

static void bad_data_are_an_error_of_all_and_they_go_on(void **state)
{
	(void)state;
	pack(5);
	run(2, LH_DIVIDE_MOMENTS, "bad_data");
	run(4, LH_DIVIDE_WEIGHTS, "bad_data");
	run_shared(4, LH_DIVIDE_MOMENTS, 2, "bad_data");
}

static void a_checkpoint_is_for_any_number_of_ranks(void **state)
{
	(void)state;
	pack(-1);
	run(2, LH_DIVIDE_MOMENTS, "save");
	run(4, LH_DIVIDE_GRADIENTS, "load");
	run(2, LH_DIVIDE_MOMENTS, "load");
	run(2, LH_DIVIDE_WEIGHTS, "load");
	run_shared(4, LH_DIVIDE_GRADIENTS, 2, "load");
	run(2, LH_DIVIDE_MOMENTS, "load_weights");
	run(2, LH_DIVIDE_MOMENTS, "no_load");
	run_shared(4, LH_DIVIDE_WEIGHTS, 2, "save");
	run(2, LH_DIVIDE_GRADIENTS, "load");
	run(4, LH_DIVIDE_WEIGHTS, "load");
	run(4, LH_DIVIDE_WEIGHTS, "load_weights");
}

static void a_save_is_that_of_all_ranks_or_none(void **state)
{
	(void)state;
	pack(-1);
	run(2, LH_DIVIDE_MOMENTS, "no_save");
	run(4, LH_DIVIDE_WEIGHTS, "no_save");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(a_step_is_that_of_one_rank),
		SCRATCH_TEST(a_step_of_shared_sequences_is_that_of_one_rank),
		SCRATCH_TEST(what_rank_0_looks_at_all_ranks_do_that_have_to),
		SCRATCH_TEST(hidden_digits_are_asked_for_by_all),
		SCRATCH_TEST(rank_0_samples_as_it_would_alone),
		SCRATCH_TEST(bad_data_are_an_error_of_all_and_they_go_on),
		SCRATCH_TEST(a_checkpoint_is_for_any_number_of_ranks),
		SCRATCH_TEST(a_save_is_that_of_all_ranks_or_none),
	};

	if (argc > 1)
		return in_rank(argv[1]);
	return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
