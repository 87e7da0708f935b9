/* spool.h: a worker's records on disk until lhd has stored them.
 *
 * A file of one JSON object a line, numbered by "seq" from 1. Records are added
 * at the end and forgotten from the front: once more than LH_SPOOL_SLACK_BYTES
 * and half of the file are acknowledged, the rest is copied to a new file that
 * takes its place, so the file is whole whenever somebody reads it. lhd reads
 * it itself when the worker is gone.
 *
 * The file never grows past its limit for the sake of step records, which are
 * refused then; the others are few and always taken.
 *
 * Records outlive the process as soon as they are added, and a power cut once
 * they were synced. That is done before a checkpoint becomes visible, so a run
 * that goes on from it lacks no record of a step before it: lhd acknowledges only
 * what a power cut cannot take from its database (jobs/record.c), and the rest is
 * here. One thread, but for lh_spool_sync.
 */
#ifndef LIGHTHOUSE_SPOOL_H
#define LIGHTHOUSE_SPOOL_H

#include <jansson.h>
#include <stdint.h>

#include "base/buf.h"
#include "lighthouse/err.h"

#define LH_SPOOL_MAX_BYTES (256ll << 20)
#define LH_SPOOL_SLACK_BYTES (1 << 20)

struct lh_spool;

/* Creates PATH, or empties it. max_bytes 0: LH_SPOOL_MAX_BYTES. */
int lh_spool_open(struct lh_spool **spool, const char *path, int64_t max_bytes,
		  struct lh_err *err);
void lh_spool_close(struct lh_spool *spool); /* syncs; NULL is allowed */

/* Adds "seq" to a record and the record to the file. LH_ETOOBIG: a step record
 * past the limit; LH_EIO. Nothing was added then. */
int lh_spool_append(struct lh_spool *spool, json_t *record, struct lh_err *err);
/* Records <= seq are stored for good: forgets them. Unknown ones are ignored. */
void lh_spool_ack(struct lh_spool *spool, int64_t seq);

/* What was added to the spool at PATH, and its name, outlive the machine. Any
 * thread, also while its owner goes on. */
int lh_spool_sync(const char *path, struct lh_err *err);

int64_t lh_spool_first(const struct lh_spool *spool); /* not acknowledged */
int64_t lh_spool_next(const struct lh_spool *spool);  /* of the next append */
/* Appends records from, from + 1, ... to `out`, separated by commas: `count` at
 * most, which all must be there. */
int lh_spool_read(const struct lh_spool *spool, int64_t from, int64_t count,
		  struct lh_buf *out, struct lh_err *err);

#endif
