/* update.c: from a gradient to new weights; see model.h.
 *
 * Ranks divide the work: the gradient of a shard is summed where its moments are, that
 * rank updates it, and its weights go to all, or stay there where they are divided. So each
 * rank has what is of all of them, the loss and the norm, added in the same order: all come
 * to the same bits. Where gradients are divided they are summed by windows, as soon as a pass
 * has made them (windows.c). */
#include "train/model_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* How a step went, in every rank's own words. */
struct measured {
	int rc;
	float loss, norm;
	char text[sizeof(((struct lh_err *)0)->text)];
};

static void measure_shard(struct lh_model *m, struct measured *own)
{
	struct lh_err err = LH_ERR_INIT;

	m->ops->norm(m->dev, m->grad_norm, own_grad(m), shard_count(m));
	own->rc = m->ops->fetch(m->dev, &own->loss, m->loss, 4, &err);
	if (!own->rc)
		own->rc = m->ops->fetch(m->dev, &own->norm, m->grad_norm, 4, &err);
	snprintf(own->text, sizeof(own->text), "%s", err.text);
}

/* Sums in the order of ranks: the same on all of them. */
static int add_up(struct lh_model *m, const struct measured *all, float *loss,
		  float *grad_norm, struct lh_err *err)
{
	double sum = 0, squares = 0;

	for (int r = 0; r < m->comm.size; r++) {
		if (all[r].rc)
			return lh_err_set(err, all[r].rc, "rank %d: %s", r, all[r].text);
		sum += all[r].loss;
		squares += (double)all[r].norm * all[r].norm;
	}
	*loss = (float)sum;
	*grad_norm = (float)sqrt(squares);
	m->ops->put(m->dev, m->grad_norm, grad_norm, 4);
	return 0;
}

static int measure_ranks(struct lh_model *m, float *loss, float *grad_norm,
			 struct lh_err *err)
{
	struct measured *all = lh_calloc((size_t)m->comm.size, sizeof(*all));
	int rc;

	if (!m->divided_grads)
		lh_model_sum(m);
	measure_shard(m, &all[m->comm.rank]);
	lh_comm_collect(&m->comm, "the loss", all, sizeof(*all));
	rc = add_up(m, all, loss, grad_norm, err);
	free(all);
	return rc;
}

int lh_model_measure(struct lh_model *m, float *loss, float *grad_norm,
		     struct lh_err *err)
{
	int rc;

	if (m->comm.size > 1)
		return measure_ranks(m, loss, grad_norm, err);
	m->ops->norm(m->dev, m->grad_norm, m->grad, m->params.floats);
	rc = m->ops->fetch(m->dev, loss, m->loss, 4, err);
	return rc ? rc : m->ops->fetch(m->dev, grad_norm, m->grad_norm, 4, err);
}

/* Parameters from .. to - 1, of this rank's shard. */
static void update(struct lh_model *m, const struct lh_adamw *opt, int64_t from, int64_t to)
{
	int64_t e = (int64_t)lh_dtype_bytes(m->ops->sizes->act_type);
	int64_t at = from - held_first(m), place = from - m->first;
	lh_act *copy = NULL;

	if (from >= to)
		return;
	if ((void *)m->weight != (void *)m->param)
		copy = (char *)m->weight + at * e;
	m->ops->adamw(m->dev, opt, to - from, m->param + at, copy, m->m + place, m->v + place,
		      own_grad(m) + place, m->grad_norm);
}

static void gather_weights(struct lh_model *m)
{
	int64_t *at = lh_calloc((size_t)m->comm.size + 1, sizeof(*at));

	for (int r = 0; r <= m->comm.size; r++)
		at[r] = r * m->shard * (int64_t)sizeof(*m->param);
	lh_comm_gather(&m->comm, "the weights", m->param, at, m->param + m->first);
	free(at);
}

void lh_model_apply(struct lh_model *m, const struct lh_adamw *opt)
{
	int64_t from = m->first, to = from + shard_count(m), d = m->params.decay_floats;
	struct lh_adamw gains = *opt;

	gains.weight_decay = 0;
	update(m, opt, from, to < d ? to : d);
	update(m, &gains, from > d ? from : d, to);
	if (m->comm.size == 1 || m->divided_weights)
		return;
	gather_weights(m);
	lh_model_weights_changed(m);
}
