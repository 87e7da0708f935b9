/* scale.c: see scale.h. */
#include "scale.h"

#include <stdio.h>
#include <string.h>

#include "ctl.h"

static bool divides(int devices, const struct lh_job *job)
{
	const struct lh_job_batch *b = &job->batch;
	int groups = devices / job->context;

	return devices % job->context == 0 && b->sequences % groups == 0 &&
	       (!b->micro_sequences || b->sequences / groups % b->micro_sequences == 0);
}

static int add_row(struct ctl_scale *s, const struct lh_job *job, const struct lh_chip *chip,
		   int64_t memory_bytes, int devices, struct lh_err *err)
{
	struct lh_job with = *job; /* borrows all of it */
	int rc;

	with.devices = devices;
	rc = lh_estimate_job(&s->row[s->count].e, &with, &lh_sizes_cuda, chip, memory_bytes,
			     err);
	if (rc && rc != LH_ETOOBIG)
		return rc;
	s->row[s->count].fits = !rc;
	s->row[s->count++].devices = devices;
	return 0;
}

int ctl_scale_measure(struct ctl_scale *s, const struct lh_job *job,
		      const struct lh_chip *chip, int64_t memory_bytes, int most,
		      struct lh_err *err)
{
	int rc = 0;

	s->count = 0;
	for (int n = 1, last = 0; !rc && last < most; n = 2 * n < most ? 2 * n : most) {
		last = n;
		if (divides(n, job))
			rc = add_row(s, job, chip, memory_bytes, n, err);
	}
	return rc;
}

static double tokens_per_s(const struct ctl_scale *s, const struct lh_job *job, int row,
			   int phase)
{
	return (double)(job->batch.sequences * job->data.seq_len) /
	       s->row[row].e.phase[phase].step_s;
}

json_t *ctl_scale_json(const struct ctl_scale *s, const struct lh_job *job)
{
	json_t *rows = json_array();

	for (int i = 0; i < s->count; i++) {
		json_t *phases = json_array();

		for (int k = 0; s->row[i].fits && k < job->phase_count; k++) {
			const struct lh_estimate_phase *p = &s->row[i].e.phase[k];

			json_array_append_new(
				phases, json_pack("{s:s, s:I, s:f, s:f, s:f}", "name",
						  job->phases[k].name, "bytes",
						  (json_int_t)p->bytes.total, "step_s",
						  p->step_s, "exchange_s", p->exchange_s,
						  "tokens_per_s",
						  tokens_per_s(s, job, i, k)));
		}
		json_array_append_new(rows, json_pack("{s:i, s:b, s:o}", "devices",
						      s->row[i].devices, "fits",
						      s->row[i].fits, "phases", phases));
	}
	return rows;
}

/* Tokens a second of a device, in the first row that fits. */
static double alone(const struct ctl_scale *s, const struct lh_job *job, int phase)
{
	for (int i = 0; i < s->count; i++)
		if (s->row[i].fits)
			return tokens_per_s(s, job, i, phase) / s->row[i].devices;
	return 0;
}

static void add_cells(struct ctl_table *t, const struct ctl_scale *s,
		      const struct lh_job *job, int row, int phase)
{
	const struct lh_estimate_phase *p = &s->row[row].e.phase[phase];
	double rate;

	ctl_table_add(t, job->phases[phase].name);
	ctl_table_addf(t, "%d", s->row[row].devices);
	if (!s->row[row].fits) {
		ctl_table_add(t, "too much");
		for (int i = 0; i < 4; i++)
			ctl_table_add(t, "-");
		return;
	}
	rate = tokens_per_s(s, job, row, phase);
	ctl_table_addf(t, "%.2f", (double)p->bytes.total / (1 << 30));
	ctl_table_addf(t, "%.3g", p->step_s);
	ctl_table_addf(t, "%.3g", p->exchange_s);
	ctl_table_addf(t, "%.0f", rate);
	ctl_table_addf(t, "%.3f", rate / s->row[row].devices / alone(s, job, phase));
}

static void say_what_divides(const struct lh_job *job, int devices)
{
	const struct lh_job_batch *b = &job->batch;
	int64_t micro = b->micro_sequences ? b->micro_sequences : 1;

	if (divides(devices, job))
		return;
	if (devices % job->context) {
		fprintf(stderr, "hint: context: %d does not divide %d devices\n", job->context,
			devices);
		return;
	}
	fprintf(stderr, "hint: %d devices cannot divide batch.sequences: %lld; --set "
		"batch.sequences=%lld would do\n", devices, (long long)b->sequences,
		(long long)(micro * (devices / job->context)));
}

void ctl_scale_print(const struct ctl_scale *s, const struct lh_job *job, int most)
{
	static const char *const heads[] = { "PHASE", "DEVICES", "GIB EACH", "S A STEP",
					     "EXCHANGE", "TOKENS/S", "OF LINEAR" };
	struct ctl_table *t = ctl_table_new(7, heads);

	for (int k = 0; k < job->phase_count; k++)
		for (int i = 0; i < s->count; i++)
			add_cells(t, s, job, i, k);
	ctl_table_print_take(t);
	say_what_divides(job, most);
}
