/* exchange.c: see exchange.h. */
#include "train/exchange.h"

/* What a MiB a rank took between two GPUs beyond its bytes. */
static const double HOP_S = 12e-6;

/* Of n devices in a row: within a host, or through hosts, whose cards then carry it. */
static double bytes_per_s(const struct lh_chip *chip, int n)
{
	bool within = n <= chip->host_devices ||
		      chip->network_bytes_per_s > chip->link_bytes_per_s;

	return within ? chip->link_bytes_per_s : chip->network_bytes_per_s;
}

/* `bytes` gathered, or summed to a piece a device: a piece goes n - 1 steps of a ring. */
static double ring_s(const struct lh_chip *chip, int n, double bytes)
{
	return (n - 1) * (bytes / n / bytes_per_s(chip, n) + HOP_S);
}

/* Windows of a pass: of weights, from the devices whose they are to all; of the gradient, back
 * to them. Pieces go through all devices. */
struct windows {
	const struct lh_chip *chip;
	const struct lh_layer_time *layers;
	int n, count; /* devices; layers */
	bool tied;
	double act_bytes;
	struct lh_params_parts parts;
};

static struct windows windows_of(const struct lh_job *job, const struct lh_chip *chip,
				 double act_bytes, const struct lh_layer_time *layers)
{
	struct windows w = { .chip = chip, .layers = layers, .n = job->devices,
			     .count = job->model.layers, .tied = job->model.tied,
			     .act_bytes = act_bytes };
	struct lh_params p;

	lh_params_init(&p, &job->model);
	w.parts = lh_params_parts(&p, &job->model);
	lh_params_release(&p);
	return w;
}

static double window_s(const struct windows *w, double bytes)
{
	return bytes / bytes_per_s(w->chip, w->n) + (w->n - 1) * HOP_S;
}

static double gather_s(const struct windows *w, int64_t params)
{
	return window_s(w, (double)params * w->act_bytes);
}

/* An own piece is added to what is there. */
static double sum_s(const struct windows *w, int64_t params)
{
	return window_s(w, (double)params * 4) +
	       (double)params * 12 / w->n / w->chip->bytes_per_s;
}

/* Of an exchange what is not over when the computation beside it is. */
static double left_s(double exchange_s, double computation_s)
{
	return exchange_s > computation_s ? exchange_s - computation_s : 0;
}

/* Weights of a layer come beside the one before it, the output's beside the last. */
static double gathers_s(const struct windows *w)
{
	const struct lh_params_parts *p = &w->parts;
	double s = gather_s(w, p->gains) + gather_s(w, p->ends) + gather_s(w, p->layer);

	for (int i = 1; i < w->count; i++)
		s += left_s(gather_s(w, p->layer), w->layers[i - 1].forward_s);
	if (!w->tied)
		s += left_s(gather_s(w, p->ends), w->layers[w->count - 1].forward_s);
	return s;
}

/* Backward, the gradient of the layer after it is summed beside a layer, the output's beside
 * the last one; and where weights are divided those of the layer before it come, but for
 * two that are there since forward. Windows are cleared before they are filled. */
static double sums_s(const struct windows *w, bool gathers)
{
	const struct lh_params_parts *p = &w->parts;
	double layer = sum_s(w, p->layer), ends = sum_s(w, p->ends);
	double s = layer + ends + sum_s(w, p->gains);
	int64_t cleared = w->count * p->layer + (w->tied ? 1 : 2) * p->ends + p->gains;

	for (int i = w->count - 1; i >= 0; i--) {
		double beside = i + 1 < w->count ? layer : w->tied ? 0 : ends;

		if (gathers && i >= 1 && i + 1 < w->count)
			beside += gather_s(w, p->layer);
		s += left_s(beside, w->layers[i].backward_s);
	}
	return s + (double)cleared * 4 / w->chip->bytes_per_s;
}

/* K and V of a layer forward, and again backward, beside the attention of pieces to their own,
 * and their gradients. What goes over the borders of pieces are some rows, in calls of their
 * own. */
static double layer_s(const struct lh_job_model *m, const struct lh_lighthouse *g,
		      const struct lh_chip *chip, int context, int64_t tokens,
		      double act_bytes, const struct lh_layer_time *time)
{
	double rows = g ? (double)lh_lighthouse_selected(g) : (double)tokens;
	double values = 2 * rows * (g ? m->heads : m->kv_heads) * m->head_dim;
	double halo = g ? 2.0 * context * (g->levels - 1) * m->heads * m->head_dim : 0;
	double keys = ring_s(chip, context, values * act_bytes);
	double s = left_s(keys, time->own_forward_s) + left_s(keys, time->own_backward_s) + keys;

	if (g)
		s += ring_s(chip, context, halo * act_bytes) + ring_s(chip, context, halo * 4);
	return s;
}

double lh_exchange_s(const struct lh_job *job, const struct lh_attention_mode *mode,
		     const struct lh_chip *chip, size_t act_bytes,
		     const struct lh_layer_time *layers)
{
	const struct lh_job_model *m = &job->model;
	struct windows w = windows_of(job, chip, (double)act_bytes, layers);
	bool weights = job->divide >= LH_DIVIDE_WEIGHTS;
	int n = job->devices, context = job->context;
	double params = (double)lh_job_model_params(m), passes, s;

	if (n == 1)
		return 0;
	passes = (double)lh_job_share(job) / (double)lh_job_micro_sequences(job);
	s = weights ? passes * gathers_s(&w) : ring_s(chip, n, params * 4);
	s += job->divide < LH_DIVIDE_GRADIENTS ? ring_s(chip, n, params * 4) :
						 passes * sums_s(&w, weights);
	for (int i = 0; context > 1 && i < m->layers; i++)
		s += passes * layer_s(m, lh_layout_lighthouse(mode, i), chip, context,
				      job->data.seq_len, (double)act_bytes, &layers[i]);
	return s;
}
