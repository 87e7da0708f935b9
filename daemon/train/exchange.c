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

/* Windows of the gradient, one after the other, each to the devices whose it is: it goes
 * through all of them. Windows are cleared before, and an own piece is added after. */
static double windows_s(const struct lh_chip *chip, int n, double params, int windows)
{
	return params * 4 / bytes_per_s(chip, n) + windows * (n - 1) * HOP_S +
	       params * (4 + 12.0 / n) / chip->bytes_per_s;
}

/* Weights of all parts forward, of layers again backward, each from the devices whose they
 * are to all. */
static double gathers_s(const struct lh_job_model *m, const struct lh_chip *chip, int n,
			double params, double act_bytes)
{
	double ends = (double)((m->tied ? 1 : 2) * m->vocab * m->dim);

	return (2 * params - ends) * act_bytes / bytes_per_s(chip, n) +
	       (2 * m->layers + 3) * (n - 1) * HOP_S;
}

/* K and V of a layer forward, again backward, and their gradients. What goes
 * over the borders of pieces are some rows, in calls of their own. */
static double layer_s(const struct lh_job_model *m, const struct lh_lighthouse *g,
		      const struct lh_chip *chip, int context, int64_t tokens,
		      double act_bytes)
{
	double rows = g ? (double)lh_lighthouse_selected(g) : (double)tokens;
	double values = 2 * rows * (g ? m->heads : m->kv_heads) * m->head_dim;
	double halo = g ? 2.0 * context * (g->levels - 1) * m->heads * m->head_dim : 0;
	double s = 3 * ring_s(chip, context, values * act_bytes);

	if (g)
		s += ring_s(chip, context, halo * act_bytes) + ring_s(chip, context, halo * 4);
	return s;
}

double lh_exchange_s(const struct lh_job *job, const struct lh_attention_mode *mode,
		     const struct lh_chip *chip, size_t act_bytes)
{
	const struct lh_job_model *m = &job->model;
	int n = job->devices, context = job->context;
	double params = (double)lh_job_model_params(m), passes, s;

	if (n == 1)
		return 0;
	passes = (double)lh_job_share(job) / (double)lh_job_micro_sequences(job);
	s = job->divide < LH_DIVIDE_WEIGHTS ?
		    ring_s(chip, n, params * 4) :
		    passes * gathers_s(m, chip, n, params, (double)act_bytes);
	s += job->divide < LH_DIVIDE_GRADIENTS ?
		     ring_s(chip, n, params * 4) :
		     passes * windows_s(chip, n, params, m->layers + 2);
	for (int i = 0; context > 1 && i < m->layers; i++)
		s += passes * layer_s(m, lh_layout_lighthouse(mode, i), chip, context,
				      job->data.seq_len, (double)act_bytes);
	return s;
}
