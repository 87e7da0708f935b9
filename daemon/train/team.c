/* team.c: see team.h. What a rank is, its data and its model, and steps. */
#include "train/team_int.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "train/checkpoint.h"

/* ---- start and end --------------------------------------------------------- */

/* Of CPUs: ranks share them. */
static int threads_of(const struct lh_team_config *c)
{
	cpu_set_t set;

	if (c->job->threads || c->size == 1 || sched_getaffinity(0, sizeof(set), &set))
		return c->job->threads;
	return CPU_COUNT(&set) > c->host_ranks ? CPU_COUNT(&set) / c->host_ranks : 1;
}

static int open_own(struct lh_team *t, struct lh_err *err)
{
	const struct lh_team_config *c = t->c;
	int rc = c->ops->open(&t->dev, threads_of(c), err);

	if (rc)
		return rc;
	if (t->job->deterministic)
		c->ops->set_deterministic(t->dev);
	if (c->cache)
		c->ops->cache(t->dev, c->cache);
	rc = lh_passkey_words_read(&t->words, t->job, err);
	return rc ? rc : lh_data_open(&t->data, t->job, c->scan, err);
}

/* Before a device is opened: rank 0 comes when nobody else has it. */
static int meet(struct lh_team *t, struct lh_err *err)
{
	const struct lh_team_config *c = t->c;
	const struct lh_comm_ops *ops = c->ops->comm;
	struct lh_comm_line *line;
	int rc;

	if (c->size == 1)
		return 0;
	if (!ops)
		return lh_err_set(err, LH_EUNSUPPORTED, "%s has no ranks", c->ops->name);
	rc = ops->open(&line, c->rank, c->size, err);
	if (rc)
		return rc;
	t->comm = (struct lh_comm){ .ops = ops, .line = line,
				    .rank = c->rank, .size = c->size,
				    .note = lh_peers_note, .note_arg = c->peers };
	return 0;
}

static int attach(struct lh_team *t, struct lh_err *err)
{
	int64_t *all;
	int rc = agree(t, err);

	if (!rc && t->comm.line)
		rc = t->comm.ops->attach(t->comm.line, t->dev, err);
	/* Before memory is measured: it takes some. */
	if (!rc && t->job->context > 1)
		rc = lh_comm_split(&t->comm, "who shares sequences", group_of(t), &t->context,
				   err);
	if (rc)
		return rc;
	all = lh_calloc((size_t)t->comm.size, sizeof(*all));
	t->free_bytes = all[t->comm.rank] = t->c->ops->free_bytes(t->dev);
	lh_comm_collect(&t->comm, "free memory", all, sizeof(*all));
	for (int r = 0; r < t->comm.size; r++)
		if (all[r] < t->free_bytes)
			t->free_bytes = all[r];
	free(all);
	return 0;
}

int lh_team_open(struct lh_team *t, const struct lh_team_config *c, struct lh_err *err)
{
	const struct lh_job *job = c->job;
	size_t rows;
	int rc;

	*t = (struct lh_team){ .c = c, .job = job, .comm = LH_COMM_ALONE,
			       .context = LH_COMM_ALONE, .trouble = LH_ERR_INIT };
	t->share = lh_job_share(job);
	t->micro = (int)lh_job_micro_sequences(job);
	rows = (size_t)(t->micro * job->data.seq_len);
	t->tokens = lh_calloc(rows, sizeof(*t->tokens));
	t->targets = lh_calloc(rows, sizeof(*t->targets));
	t->row_loss = lh_calloc(rows, sizeof(*t->row_loss));
	if (job->data.documents == LH_DOCUMENTS_SEPARATE)
		t->starts = lh_calloc(rows, sizeof(*t->starts));
	for (int i = 0; i < job->phase_count; i++)
		lh_attention_mode_of(&t->modes[i], job, i);
	rc = meet(t, err);
	if (!rc) {
		open_own(t, &t->trouble);
		rc = attach(t, err);
	}
	t->together = !rc;
	return rc;
}

static void release(struct lh_team *t)
{
	lh_saver_free(t->saver);
	lh_model_free(t->model);
	lh_data_close(&t->data);
	lh_passkey_words_release(&t->words);
	lh_comm_close(&t->context);
	lh_comm_close(&t->comm);
	if (t->c)
		t->c->ops->close(t->dev);
	free(t->tokens);
	free(t->targets);
	free(t->starts);
	free(t->row_loss);
	free(t->saved_in);
	*t = (struct lh_team){ 0 };
}

void lh_team_close(struct lh_team *t)
{
	struct lh_saved saved;

	if (t->together && lh_team_is_saving(t) && lh_team_take_save(t, true, &saved))
		free(saved.path);
	if (t->together)
		give(t, &(struct order){ .task = END });
	release(t);
}

/* ---- data ------------------------------------------------------------------ */

int lh_team_read_train(struct lh_team *t, int64_t draw, int s, struct lh_err *err)
{
	int64_t at = s * t->job->data.seq_len;

	return lh_data_train(&t->data, draw, t->tokens + at, t->targets + at,
			     t->starts ? t->starts + at : NULL, err);
}

int lh_team_read_validation(struct lh_team *t, int set, int64_t i, int64_t n, int s,
			    struct lh_err *err)
{
	int64_t at = s * t->job->data.seq_len;

	return lh_data_validation(&t->data, set, i, n, t->tokens + at, t->targets + at,
				  t->starts ? t->starts + at : NULL, err);
}

/* ---- tasks: what each rank does -------------------------------------------- */

/* An error waits until all are asked. */
static void make_model(struct lh_team *t)
{
	const struct lh_job *job = t->job;
	const struct lh_division division = { .comm = t->comm, .divide = job->divide,
					      .context = t->context };

	lh_model_new(&t->model, t->c->ops, t->dev, &division, &job->model, t->micro,
		     job->data.seq_len, t->modes, job->phase_count, &t->trouble);
}

static int prepare(struct lh_team *t, int phase, struct lh_err *err)
{
	lh_model_prepare(t->model, &t->modes[phase], 1, t->share, lh_team_evaluated(t),
			 t->starts != NULL, &t->trouble);
	return agree(t, err);
}

static int micro(struct lh_team *t, const struct order *o, struct lh_err *err)
{
	int64_t first = o->cursor + group_of(t) * t->share + o->at, left = t->share - o->at;
	int b = left < t->micro ? (int)left : t->micro, rc = 0;

	for (int s = 0; !rc && s < b; s++)
		rc = lh_team_read_train(t, first + s, s, &t->trouble);
	rc = agree(t, err); /* now: ranks may sum gradients in the midst of the pass */
	if (!rc)
		lh_model_forward_backward(t->model, &t->modes[o->phase], b, t->tokens,
					  t->targets, t->starts, o->scale);
	return rc;
}

/* ---- obeying --------------------------------------------------------------- */

static void obey(struct lh_team *t, const struct order *o)
{
	float loss, norm;

	switch (o->task) {
	case MAKE_MODEL:
		for (int i = 0; i < t->job->phase_count; i++)
			t->modes[i].recompute = o->recompute[i];
		make_model(t);
		agree(t, NULL);
		break;
	case PREPARE:
		prepare(t, o->phase, NULL);
		break;
	case INIT:
		lh_model_init(t->model, o->seed);
		break;
	case BEGIN:
		lh_peers_step(t->c->peers, o->step);
		lh_model_zero_grad(t->model);
		break;
	case MICRO:
		micro(t, o, NULL);
		break;
	case MEASURE:
		lh_model_measure(t->model, &loss, &norm, NULL);
		break;
	case APPLY:
		lh_model_apply(t->model, &o->opt);
		break;
	case EVALUATE:
	case PASSKEY:
	case LOSS:
	case SELECTION:
		lh_team_obey_look(t, o);
		break;
	case FOLLOW:
		lh_model_follow(t->model);
		break;
	case LOAD:
	case OPEN_SAVER:
	case SAVE:
	case MEET:
		lh_team_obey_file(t, o);
		break;
	case END:
		break;
	}
}

int lh_team_follow(const struct lh_team_config *c, struct lh_err *err)
{
	struct order o = { .task = BEGIN };
	struct lh_team t;
	int rc = lh_team_open(&t, c, err);

	while (!rc && o.task != END) {
		give(&t, &o); /* rank 0's takes its place */
		t.data.mix = o.mix;
		obey(&t, &o);
	}
	release(&t);
	return rc;
}

/* ---- rank 0 ---------------------------------------------------------------- */

int lh_team_make_model(struct lh_team *t, struct lh_err *err)
{
	struct order o = { .task = MAKE_MODEL };

	for (int i = 0; i < t->job->phase_count; i++)
		o.recompute[i] = t->modes[i].recompute;
	give(t, &o);
	make_model(t);
	return agree(t, err);
}

int lh_team_prepare(struct lh_team *t, int phase, struct lh_err *err)
{
	give(t, &(struct order){ .task = PREPARE, .phase = phase });
	return prepare(t, phase, err);
}

void lh_team_init(struct lh_team *t, uint64_t seed)
{
	give(t, &(struct order){ .task = INIT, .seed = seed });
	lh_model_init(t->model, seed);
}

void lh_team_begin(struct lh_team *t, int64_t step)
{
	give(t, &(struct order){ .task = BEGIN, .step = step });
	lh_peers_step(t->c->peers, step);
	lh_model_zero_grad(t->model);
}

int lh_team_micro(struct lh_team *t, int phase, int64_t cursor, int64_t at, float scale,
		  struct lh_err *err)
{
	struct order o = { .task = MICRO, .phase = phase, .cursor = cursor, .at = at,
			   .scale = scale };

	give(t, &o);
	return micro(t, &o, err);
}

int lh_team_measure(struct lh_team *t, float *loss, float *norm, struct lh_err *err)
{
	give(t, &(struct order){ .task = MEASURE });
	return lh_model_measure(t->model, loss, norm, err);
}

void lh_team_apply(struct lh_team *t, const struct lh_adamw *opt)
{
	give(t, &(struct order){ .task = APPLY, .opt = *opt });
	lh_model_apply(t->model, opt);
}

void lh_team_lead(struct lh_team *t, bool on)
{
	if (on)
		give(t, &(struct order){ .task = FOLLOW });
	lh_model_lead(t->model, on);
}
