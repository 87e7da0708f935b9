/* trial.h: the record of a switch on trial, of what must outlive a worker in it.
 *
 * jobs/<id>/trial.json is there from the switch until its verdict. It counts the
 * attempts that were in the trial and ended without a word: two, and the switch has
 * failed, since whatever kills a worker would kill the next one too. And it holds the
 * verdict of one that failed: the process that saw it may not be able to go back (a
 * device in error cannot load a checkpoint), so the next attempt does; see rewind.c.
 *
 * Training thread.
 */
#ifndef LIGHTHOUSE_TRIAL_H
#define LIGHTHOUSE_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"
#include "train/watch.h"

enum { LH_TRIAL_ATTEMPTS = 2 }; /* that may be lost in one */

struct lh_trial {
	int64_t step;    /* at which it was entered; there is a checkpoint of before */
	int phase, from; /* entered and left */
	int64_t command; /* that asked for it, 0: the phase before it was over */
	bool held;       /* taken back, `from` goes on until it is switched by hand */
	int attempts;    /* that were in it and did not end by themselves */
	char why[320];   /* it failed; "": not so far */
	struct lh_watch watch; /* its counts are carried back */
};

/* False when there is none, or one that makes no sense. */
bool lh_trial_read(const char *path, struct lh_trial *t);
int lh_trial_write(const char *path, const struct lh_trial *t, struct lh_err *err);
bool lh_trial_is_same(const struct lh_trial *a, const struct lh_trial *b);
/* The same switch, entered again. One by command may come to another step: its first
 * worker died before it told, and the next got the command later. */
bool lh_trial_is_again(const struct lh_trial *a, const struct lh_trial *b);
/* By its verdict, or by attempts that were lost: then `why` says so. */
bool lh_trial_has_failed(struct lh_trial *t);

#endif
