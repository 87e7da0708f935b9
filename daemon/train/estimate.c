/* estimate.c: see estimate.h. */
#include "train/estimate.h"

#include <string.h>

#include "train/exchange.h"

/* The H100's are measured: tests/bench/results/cuda.md. The H200 has the same
 * processors and more bandwidth: its are the H100's, scaled, and not measured. Links are
 * the same, measured between two H200 (ranks.md); of a network nothing is known, and one
 * card of 400 Gbit/s is taken. */
static const struct lh_chip chips[] = {
	{ "h100", "NVIDIA H100 80GB HBM3", 85017493504, 670e12, 590e12, 545e12, 2.3e12,
	  8, 280e9, 50e9 },
	{ "h200", "NVIDIA H200", (int64_t)139 << 30, 700e12, 610e12, 560e12, 3.2e12,
	  8, 280e9, 50e9 },
};

/* What the driver and libraries keep of a GPU before anything is opened. */
static const double DRIVER_SHARE = 0.005;

const struct lh_chip *lh_chip_find(const char *name)
{
	for (size_t i = 0; i < sizeof(chips) / sizeof(*chips); i++)
		if (!strcmp(chips[i].name, name))
			return &chips[i];
	return NULL;
}

const struct lh_chip *lh_chip_of_device(const char *device)
{
	for (size_t i = 0; i < sizeof(chips) / sizeof(*chips); i++)
		if (!strcmp(chips[i].device, device))
			return &chips[i];
	return NULL;
}

/* tests/bench/results/cpu.md. */
const struct lh_chip lh_chip_unknown = { "unknown", "", 0, 400e9, 200e9, 200e9, 20e9,
					 64, 5e9, 1e9 };

const char *lh_chip_names(void)
{
	return "h100, h200";
}

int64_t lh_chip_usable_bytes(int64_t memory_bytes)
{
	return (int64_t)((double)memory_bytes * (1 - DRIVER_SHARE));
}

/* Seconds of one micro-batch in a layout, and of the optimizer. Letters as in
 * lighthouse/ops.h. */
struct count {
	const struct lh_chip *chip;
	const struct lh_layout *l;
	double R, C, F, HD, QKV; /* R of a rank */
	double context;          /* ranks that share a sequence */
	double e; /* bytes of an activation */
};

static double elementwise(const struct count *c, double columns)
{
	return c->R * columns * c->e / c->chip->bytes_per_s;
}

static double gemm(const struct count *c, double weights, int times)
{
	return times * 2 * c->R * weights / c->chip->gemm_flops;
}

/* A deterministic backward of attention against the default: 1.25 to 1.31 times from
 * 8,192 to 98,304 tokens (tests/bench/results/cuda.md). */
static const double FIXED_BACKWARD = 1.3;

/* Attention of S tokens: half of the square, 4 products' worth of operations
 * forward, 10 backward, of which each of those that share them has as much. Short ones do
 * not fill the chip. */
static double sdpa(const struct count *c, double S, bool backward)
{
	double square = c->l->B * S * S * c->HD / c->context, fill = S / (S + 1200), s;

	if (!backward)
		return 2 * square / (c->chip->sdpa_flops * fill);
	s = 5 * square / (c->chip->sdpa_bwd_flops * fill);
	return c->l->deterministic ? FIXED_BACKWARD * s : s;
}

/* What the dilated scorer adds to a forward pass: attention of every residue class
 * for queries, then for keys, of rows rotated and spread to all heads. */
static double dilated_s(const struct count *c, const struct lh_lighthouse *g)
{
	double classes = g->dilation, S = (double)g->tokens / classes;

	return 2 * classes * sdpa(c, S, false) + elementwise(c, 10 * c->HD);
}

static double rows_of(const struct count *c, const struct lh_lighthouse *g)
{
	return g ? (double)lh_lighthouse_selected(g) : (double)c->l->T;
}

/* Rotation, or the pyramid, one way: both take 5 times b of the layer's bench. */
static double turn_s(const struct count *c, const struct lh_lighthouse *g)
{
	return elementwise(c, g ? 5 * 2 * c->HD : 2 * (c->QKV - c->HD));
}

static double forward_s(const struct count *c, const struct lh_lighthouse *g)
{
	const struct lh_job_model *m = c->l->model;
	double s = gemm(c, c->C * (c->QKV + c->HD + 3 * c->F), 1);

	s += sdpa(c, rows_of(c, g), false);
	s += elementwise(c, 4 * c->C + 3 * c->F); /* norms, swiglu */
	if (m->qkv_bias)
		s += elementwise(c, 2 * c->QKV);
	if (m->qk_norm)
		s += elementwise(c, 2 * (c->QKV - c->HD));
	s += turn_s(c, g);
	if (g && g->scorer == LH_SCORER_DILATED) /* its choice is kept */
		s += dilated_s(c, g);
	return s + 20e-6; /* some ten launches, and their tails */
}

/* With what is computed again. */
static double backward_s(const struct count *c, const struct lh_lighthouse *g)
{
	enum lh_recompute again = c->l->mode->recompute;
	const struct lh_job_model *m = c->l->model;
	double s = gemm(c, c->C * (c->QKV + c->HD + 3 * c->F), 2);

	s += sdpa(c, rows_of(c, g), true);
	s += elementwise(c, 8 * c->C + 5 * c->F); /* of norms and swiglu */
	if (m->qkv_bias)
		s += elementwise(c, c->QKV);
	if (m->qk_norm) /* whose rows are projected once more */
		s += gemm(c, c->C * c->QKV, 1) + elementwise(c, 3 * (c->QKV - c->HD));
	s += turn_s(c, g);
	if (again >= LH_RECOMPUTE_CHEAP)
		s += elementwise(c, 4 * c->C + 3 * c->F + (g ? 2 * c->HD : 0));
	if (again >= LH_RECOMPUTE_MLP)
		s += gemm(c, 2 * c->C * c->F, 1);
	if (again == LH_RECOMPUTE_LAYER)
		s += gemm(c, c->C * (c->QKV + c->HD), 1) +
		     elementwise(c, 2 * c->C + (g ? 7 * c->HD : 2 * c->QKV));
	return s + 40e-6; /* some twenty launches */
}

/* Of a rank's attention: of its two pieces each to itself, a square of S/(2W) rows of the
 * sequence's S. */
static double own_s(const struct count *c, const struct lh_lighthouse *g, bool backward)
{
	return sdpa(c, rows_of(c, g), backward) / (2 * c->context);
}

/* *exchange_s <- what of it is waited for: lh_exchange_s. */
static double step_s(const struct lh_job *job, const struct lh_chip *chip,
		     const struct lh_layout *l, double *exchange_s)
{
	const struct lh_job_model *m = &job->model;
	struct count c = {
		.chip = chip, .l = l, .context = job->context,
		.R = (double)l->B * (double)l->T / job->context,
		.C = (double)m->dim, .F = (double)m->ffn_dim,
		.HD = (double)m->heads * m->head_dim,
		.QKV = (double)(m->heads + 2 * m->kv_heads) * m->head_dim,
		.e = (double)lh_dtype_bytes(l->sizes->act_type) };
	double micro = 0, params = (double)lh_job_model_params(m), V = (double)m->vocab;
	struct lh_layer_time layers[LH_LAYERS_MAX];

	for (int i = 0; i < m->layers; i++) {
		const struct lh_lighthouse *g = lh_layout_lighthouse(l->mode, i);

		layers[i] = (struct lh_layer_time){ forward_s(&c, g), backward_s(&c, g),
						    own_s(&c, g, false), own_s(&c, g, true) };
		micro += layers[i].forward_s + layers[i].backward_s;
	}
	micro += gemm(&c, c.C * V, 3) + elementwise(&c, 4 * V + 8 * c.C);
	*exchange_s = lh_exchange_s(job, l->mode, chip, (size_t)c.e, layers);
	/* Gradients cleared and measured; weights and moments read and written. */
	return micro * (double)lh_job_share(job) / l->B + params * 38 / chip->bytes_per_s +
	       *exchange_s;
}

/* Sequences of the last micro-batch of n where it is not a whole one. */
static int rest_of(int64_t n, int64_t micro)
{
	return (int)(n % micro);
}

static int check_ops(const struct lh_job *job, const struct lh_ops_sizes *sizes,
		     struct lh_err *err)
{
	const struct lh_job_model *m = &job->model;
	const char *lacks = NULL;

	if (job->data.documents == LH_DOCUMENTS_SEPARATE && !sizes->has_documents)
		lacks = "with data.documents: separate";
	if (m->qk_norm && !sizes->has_qk_norm)
		lacks = "models with model.qk_norm";
	if (m->qkv_bias && !sizes->has_bias)
		lacks = "models with model.qkv_bias";
	if (!lacks)
		return 0;
	lh_err_set(err, LH_EUNSUPPORTED, "this device cannot train %s", lacks);
	return lh_err_hint(err, "device: cpu can");
}

/* What the device's ops can do, of every phase and of evaluations. */
static int check_support(const struct lh_job *job, const struct lh_ops_sizes *sizes,
			 const struct lh_layout *l, struct lh_err *err)
{
	struct lh_sdpa s = lh_layout_sdpa(l, l->B, NULL);
	int rc = check_ops(job, sizes, err);

	if (!rc)
		rc = sizes->supports(&s, err);
	for (int i = 0; !rc && i < job->phase_count; i++) {
		struct lh_attention_mode mode;

		lh_attention_mode_of(&mode, job, i);
		if (mode.attention == LH_ATTENTION_FULL)
			continue;
		s = lh_layout_sdpa(l, l->B, &mode.geometry);
		rc = sizes->supports(&s, err);
		if (rc)
			lh_err_prefix(err, "phase '%s'", job->phases[i].name);
	}
	return rc;
}

/* What the same layout would do without. */
static void measure_determinism(struct lh_estimate_phase *p, const struct lh_job *job,
				const struct lh_chip *chip, struct lh_layout l)
{
	struct lh_layout_bytes without;
	double exchange_s;

	l.deterministic = false;
	lh_layout_measure(&l, &without);
	p->deterministic_bytes = p->bytes.total - without.total;
	p->deterministic_s = chip ? p->step_s - step_s(job, chip, &l, &exchange_s) : 0;
}

int lh_estimate_job(struct lh_estimate *out, const struct lh_job *job,
		    const struct lh_ops_sizes *sizes, const struct lh_chip *chip,
		    int64_t memory_bytes, struct lh_err *err)
{
	int64_t micro = lh_job_micro_sequences(job);
	struct lh_layout l = { .model = &job->model, .sizes = sizes, .B = (int)micro,
			       .T = job->data.seq_len, .ranks = job->devices,
			       .context = job->context, .divide = job->divide,
			       .rest = rest_of(job->evaluation.sequences, micro),
			       .deterministic = job->deterministic,
			       .documents = job->data.documents == LH_DOCUMENTS_SEPARATE };
	struct lh_attention_mode full = lh_attention_full;
	struct lh_layout_bytes evaluation;
	int rc = check_support(job, sizes, &l, err);

	memset(out, 0, sizeof(*out));
	if (rc)
		return rc;
	rc = lh_layout_choose(&l, &full, memory_bytes, err);
	if (rc) {
		lh_err_prefix(err, "evaluation");
		return rc;
	}
	lh_layout_measure(&l, &evaluation);
	out->bytes = evaluation.total;
	l.train = true;
	l.rest = rest_of(lh_job_share(job), micro);
	for (int i = 0; i < job->phase_count; i++) {
		struct lh_estimate_phase *p = &out->phase[i];
		struct lh_attention_mode mode;

		lh_attention_mode_of(&mode, job, i);
		rc = lh_layout_choose(&l, &mode, memory_bytes, err);
		if (rc) {
			lh_err_prefix(err, "phase '%s'", job->phases[i].name);
			return rc;
		}
		p->recompute = mode.recompute;
		lh_layout_measure(&l, &p->bytes);
		if (chip)
			p->step_s = step_s(job, chip, &l, &p->exchange_s);
		measure_determinism(p, job, chip, l);
		if (p->bytes.total > out->bytes)
			out->bytes = p->bytes.total;
	}
	return 0;
}
