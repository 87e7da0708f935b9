/* saver.h: checkpoints written while training goes on.
 *
 * At a step boundary the state is copied into host memory, and a thread writes it
 * from there. That memory is as large as weights and moments, 12 bytes a
 * parameter, and is taken once; a save that comes while one is being written
 * waits for it. Records that were posted before are made safe first: a run that
 * goes on from the checkpoint lacks none.
 *
 * Of several ranks each has a saver, with a part of the state and a thread that writes that
 * part (checkpoint.h). They begin together; whether all have written they find out when
 * they meet, and then rank 0's finishes the checkpoint while the others are free. A rank that
 * does not see the directory, on a host without it, has no part: those who do write its state.
 *
 * Training thread only; the thread inside is the saver's own, and calls `moved` from there.
 */
#ifndef LIGHTHOUSE_SAVER_H
#define LIGHTHOUSE_SAVER_H

#include "train/checkpoint.h"
#include "train/link.h"

struct lh_saver;

struct lh_saver_config {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_model *model;
	const struct lh_comm *comm; /* of several ranks, or NULL; outlives the saver */
	const char *dir;      /* of the checkpoints; on other hosts it need not be there */
	/* From here on rank 0's alone. */
	const json_t *spec;   /* the resolved job */
	const json_t *origin; /* see origin.h */
	struct lh_link *link; /* of the records, or NULL; outlives the saver */
	int keep;             /* newest ones that stay */
	int64_t keep_every;   /* steps; those at multiples stay too, 0 none */
	/* lh_saver_take waits, or ranks meet, for a save that gets on. */
	void (*moved)(void *arg);
	void *moved_arg;
};

struct lh_saved {
	int64_t step, bytes;
	double stall_ms;      /* training stood still */
	double duration_ms;   /* from the boundary until it was safe on disk */
	const char *reason;   /* as given */
	char *path;           /* the receiver's to free; NULL if it failed */
	int rc;               /* 0, or why it failed */
	struct lh_err err;
};

/* Clears what one that was killed left torn: a run that ends where it goes on saves
 * nothing, and nobody would. Collective. LH_ETOOBIG when the memory is not to be had. */
int lh_saver_new(struct lh_saver **s, const struct lh_saver_config *config,
		 struct lh_err *err);
/* Waits for a save that is under way; what lh_saver_take has not told is lost. */
void lh_saver_free(struct lh_saver *s); /* NULL is allowed */

/* Copies the state and begins to write. lh_saver_take must have told of the one
 * before (LH_BUG). `reason` is a literal. Collective; on ranks but 0 the step alone
 * counts. */
int lh_saver_begin(struct lh_saver *s, const struct lh_progress *p, const char *reason,
		   struct lh_err *err);
/* Whether a save was begun and not yet taken; on ranks but 0, not yet met about. */
bool lh_saver_is_busy(const struct lh_saver *s);
/* Of a save that was begun: whether the thread here has nothing left to do; and whether all
 * ranks have met, from when on rank 0 takes it. One that is alone has. */
bool lh_saver_is_written(const struct lh_saver *s);
bool lh_saver_has_met(const struct lh_saver *s);
/* Collective: whether all parts are written. If so, they have met. */
bool lh_saver_meet(struct lh_saver *s);
/* True with the save that has ended, or with `wait` the one under way. */
bool lh_saver_take(struct lh_saver *s, bool wait, struct lh_saved *saved);

#endif
