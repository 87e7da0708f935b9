/* jobfile.h: from a job file to a resolved struct lh_job, and to JSON and back.
 *
 * One table, generated from schema/job.json, drives all of it: which keys there
 * are, their types, ranges and defaults. Strict: an unknown or repeated key, a
 * wrong type, a value out of range, an alias or anchor, a second document, more
 * keys, levels or overrides than any job has is refused with "FILE:LINE: KEY: what was found; what is allowed" and a hint
 * (for a misspelt key, the nearest one). Then what one key cannot tell: head
 * counts that divide, sequences that devices can share, the preconditions of
 * Lighthouse attention for each phase, schedules that need a known number of
 * steps, weights to start from that have another shape, data files that open,
 * hold enough tokens and fit the vocabulary.
 *
 * Blocking (opens data files): lhd calls it on the thread pool. No globals.
 */
#ifndef LIGHTHOUSE_JOBFILE_H
#define LIGHTHOUSE_JOBFILE_H

#include <jansson.h>
#include <stdio.h>

#include "lighthouse/job.h"

/* Where a job comes from. Strings are borrowed for the call. */
struct lh_jobfile_source {
	const char *yaml;         /* text, not necessarily NUL-free UTF-8 */
	size_t yaml_bytes;
	const char *file;         /* name in error messages; NULL: "job file" */
	const char *base_dir;     /* absolute; relative data paths start here */
	const char *const *set;   /* overrides "a.b=value", "phases.0.topk=256" */
	int set_count;
	bool without_data;        /* data paths stay as written and are not opened */
};

/* Fills a zeroed job, or returns LH_EJOBFILE, LH_EDATA (and leaves it empty). */
int lh_jobfile_load(struct lh_job *job, const struct lh_jobfile_source *src,
		    struct lh_err *err);

/* The resolved job, every key with its value, in the order of the schema.
 * New reference. */
json_t *lh_jobfile_to_json(const struct lh_job *job);

/* The inverse, for the worker; the same strictness, but data files are not
 * opened and the names of phases are taken as they are. */
int lh_jobfile_from_json(struct lh_job *job, const json_t *json,
			 struct lh_err *err);

/* Steps planned over all phases when each is ended by its own `until`:
 * tokens become steps; -1 when a phase is manual or ends by minutes alone. */
int64_t lh_jobfile_total_steps(const struct lh_job *job);
/* The same of one phase, and of a phase with other limits. */
int64_t lh_jobfile_phase_steps(const struct lh_job *job, int phase);
int64_t lh_jobfile_until_steps(const struct lh_job *job, const struct lh_job_until *u);

/* Index of a phase by name or by decimal index; LH_ENOTFOUND with the list. */
int lh_jobfile_find_phase(const struct lh_job *job, const char *name, int *phase,
			  struct lh_err *err);

/* Every key with its meaning, range and default, for `lhctl help job`. */
void lh_jobfile_print_reference(FILE *f);

#endif
