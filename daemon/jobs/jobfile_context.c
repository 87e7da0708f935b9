/* jobfile_context.c: what a job must be so that devices can share its sequences; see
 * train/context.h for how.
 *
 * W of them have 2 W pieces of a sequence. A Lighthouse phase is done in each by itself, so
 * neither a window of the coarsest level nor a tile may lie across the end of one. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "jobs/jobfile_int.h"

enum { TRIES = 200 }; /* of values for a hint */

static int blame(const struct lh_node *root, const char *path, struct lh_err *err)
{
	return lh_node_blame(lh_node_find(root, path), path, err);
}

static int pieces(const struct lh_job *job)
{
	return 2 * job->context;
}

/* ---- any job ----------------------------------------------------------------- */

static int check_devices(const struct lh_job *job, const struct lh_node *root,
			 struct lh_err *err)
{
	int would_do = job->context < job->devices ? job->context : job->devices;

	if (job->all_devices || job->devices % job->context == 0)
		return 0;
	while (job->devices % would_do)
		would_do--;
	lh_err_set(err, LH_EJOBFILE, "found %d, which does not divide the %d device%s",
		   job->context, job->devices, job->devices > 1 ? "s" : "");
	lh_err_hint(err, "as many devices share each sequence: %d would do, or devices: %d",
		    would_do, (job->devices / job->context + 1) * job->context);
	return blame(root, "context", err);
}

/* Of a job without Lighthouse phases, which have more to say. */
static int check_tokens(const struct lh_job *job, const struct lh_node *root,
			struct lh_err *err)
{
	int64_t n = job->data.seq_len, below = n / pieces(job) * pieces(job);

	for (int i = 0; i < job->phase_count; i++)
		if (job->phases[i].attention == LH_ATTENTION_LIGHTHOUSE)
			return 0;
	if (n == below)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", %d devices share a sequence in %d "
		   "equal pieces", n, job->context, pieces(job));
	if (below)
		lh_err_hint(err, "%" PRId64 " or %" PRId64 " would do", below,
			    below + pieces(job));
	else
		lh_err_hint(err, "%d would do", pieces(job));
	return blame(root, "data.seq_len", err);
}

int lh_jobfile_check_context(const struct lh_job *job, const struct lh_node *root,
			     struct lh_err *err)
{
	if (job->context == 1)
		return 0;
	if (check_devices(job, root, err) || check_tokens(job, root, err))
		return err->code;
	if (job->batch.micro_sequences > 1) {
		lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", sequences that devices share "
			   "come one at a time", job->batch.micro_sequences);
		lh_err_hint(err, "1, or context: 1");
		return blame(root, "batch.micro_sequences", err);
	}
	if (job->data.documents == LH_DOCUMENTS_ATTEND)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "devices that share a sequence do not keep its documents "
		   "apart");
	lh_err_hint(err, "attend, or context: 1");
	return blame(root, "data.documents", err);
}

/* ---- a Lighthouse phase -------------------------------------------------------- */

static int64_t piece_unit(const struct lh_lighthouse *g, const struct lh_job *job)
{
	return pieces(job) * lh_lighthouse_window(g, g->levels - 1);
}

static bool has_pieces(const struct lh_lighthouse *g, const struct lh_job *job)
{
	struct lh_err why = LH_ERR_INIT;

	return !lh_lighthouse_check(g, NULL, &why) && g->tokens % piece_unit(g, job) == 0 &&
	       lh_lighthouse_tiles(g) % pieces(job) == 0;
}

/* The i-th multiple of `unit`, by how near it is to `value`. */
static int64_t near(int64_t value, int64_t unit, int i)
{
	return (value / unit + (i % 2 ? (i + 1) / 2 : -(i / 2))) * unit;
}

static bool find_topk(struct lh_lighthouse *g, const struct lh_job *job)
{
	int64_t topk = g->topk, unit = (int64_t)pieces(job) * g->tile;

	for (int i = 0; i < TRIES; i++) {
		g->topk = near(topk, unit, i);
		if (g->topk > 0 && has_pieces(g, job))
			return true;
	}
	return false;
}

static bool find_tile(struct lh_lighthouse *g, const struct lh_job *job)
{
	while (g->tile > 2) {
		g->tile = (g->tile - 1) / 2 * 2;
		if (has_pieces(g, job))
			return true;
	}
	return false;
}

/* Of others so many that there is a topk for them. */
static bool find_tokens(struct lh_lighthouse *g, const struct lh_job *job)
{
	const struct lh_lighthouse was = *g;

	for (int i = 0; i < TRIES; i++) {
		*g = was;
		g->tokens = near(was.tokens, piece_unit(g, job), i);
		if (g->tokens > 0 && find_topk(g, job))
			return true;
	}
	return false;
}

static int refuse_tiles(const struct lh_job *job, const struct lh_lighthouse *g,
			const struct lh_lighthouse *other_k,
			const struct lh_lighthouse *other_m, struct lh_err *err)
{
	lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", whose tiles of %d are %" PRId64
		   ": the %d pieces in which devices share a sequence have no whole ones",
		   g->topk, g->tile, lh_lighthouse_tiles(g), pieces(job));
	if (other_k && other_m)
		return lh_err_hint(err, "topk: %" PRId64 " would do, or tile: %d",
				   other_k->topk, other_m->tile);
	if (other_k)
		return lh_err_hint(err, "topk: %" PRId64 " would do", other_k->topk);
	return lh_err_hint(err, "tile: %d would do", other_m->tile);
}

static int refuse_tokens(const struct lh_job *job, struct lh_lighthouse g, struct lh_err *err)
{
	lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", %d devices share a sequence in %d "
		   "pieces of whole tiles, and of whole windows of %" PRId64 " tokens",
		   g.tokens, job->context, pieces(job),
		   lh_lighthouse_window(&g, g.levels - 1));
	if (find_tokens(&g, job))
		return lh_err_hint(err, "%" PRId64 " would do with topk: %" PRId64 ", or "
				   "context: 1", g.tokens, g.topk);
	return lh_err_hint(err, "fewer levels, a smaller tile, or context: 1");
}

int lh_jobfile_check_pieces(const struct lh_job *job, int phase, const struct lh_node *root,
			    struct lh_err *err)
{
	const struct lh_lighthouse *g = &job->phases[phase].lighthouse;
	struct lh_lighthouse other_k = *g, other_m = *g;
	char path[80];
	bool k, m;

	if (job->context == 1)
		return 0;
	if (g->scorer != LH_SCORER_NORM) {
		lh_err_set(err, LH_EJOBFILE, "this scorer attends to whole sequences, which "
			   "devices share");
		lh_err_hint(err, "norm, or context: 1");
		snprintf(path, sizeof(path), "phases.%d.scorer", phase);
		return blame(root, path, err);
	}
	if (has_pieces(g, job))
		return 0;
	k = find_topk(&other_k, job);
	m = find_tile(&other_m, job);
	if (!k && !m) {
		refuse_tokens(job, *g, err);
		return blame(root, "data.seq_len", err);
	}
	refuse_tiles(job, g, k ? &other_k : NULL, m ? &other_m : NULL, err);
	snprintf(path, sizeof(path), "phases.%d.topk", phase);
	return blame(root, path, err);
}
