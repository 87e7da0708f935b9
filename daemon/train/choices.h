/* choices.h: multiple choice: which of several endings a model finds likeliest.
 *
 * A file has an item a line, as HellaSwag is published:
 *
 *   {"ctx": "A man is on a roof. He", "endings": ["starts to ...", ...], "label": 3}
 *
 * The fields of text are for jobs whose ids are bytes; a blank is put between them
 * where neither has one. Other jobs need ids, `ctx_ids` and `endings_ids`, taken as
 * they are; where a line has both, ids are what the model sees. 'lhctl ids' adds them
 * to lines of text, and `tokenizer`, 16 hex digits, the xxh64 of the file that they are
 * of. Any other field is passed over; what a harness does to the text before (a
 * heading, a prompt) is for who writes the file.
 *
 * Scores are those of EleutherAI's lm-evaluation-harness. An ending's is the sum of the
 * log-probabilities of its ids after the context; `acc` is the share of items whose
 * label has the highest, `acc_norm` the same with each score divided by the bytes of
 * the ending's text, or by its ids where there is no text. A context that is too long
 * for a sequence loses its beginning.
 *
 * Held in memory, at most LH_CHOICES_IDS_MAX ids of a file. Pure but for reading the
 * file; any thread.
 */
#ifndef LIGHTHOUSE_CHOICES_H
#define LIGHTHOUSE_CHOICES_H

#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"
#include "lighthouse/job.h"

enum { LH_ENDINGS_MIN = 2, LH_ENDINGS_MAX = 8,
       LH_CHOICES_LINE_BYTES = 1 << 20,  /* of a line at most */
       LH_CHOICES_IDS_MAX = 16 << 20 };

struct lh_choice {
	int64_t from;                    /* of its context in ids; the endings follow */
	int32_t context;                 /* ids, at least 1 */
	int endings, label;
	int32_t ending[LH_ENDINGS_MAX];  /* ids of each, at least 1 */
	int32_t length[LH_ENDINGS_MAX];  /* what acc_norm divides by */
};

struct lh_choices {
	int32_t *ids;
	int64_t id_count, id_room;
	struct lh_choice *items;
	int64_t count;
	int64_t cut;     /* items whose context was too long */
	uint64_t tokenizer; /* of the ids, 0: it is not told */
	int64_t longest; /* ids that a model is given of one ending */
};

/* The first job->evaluation.choices.items items of the file. LH_EDATA names file and
 * line of one that is none; LH_ENOTFOUND. Empty after an error. */
int lh_choices_read(struct lh_choices *c, const char *path, const struct lh_job *job,
		    struct lh_err *err);
void lh_choices_release(struct lh_choices *c); /* an empty one is allowed */

/* tokens, targets (t) of one ending, t at least c->longest: what follows is 0, and what
 * is not of the ending has target -1. */
void lh_choices_row(const struct lh_choices *c, int64_t item, int ending, int64_t t,
		    int32_t *tokens, int32_t *targets);
/* Whether the label is picked: by nats of each ending, the least of which wins, or by
 * them divided by the lengths. Of equals the first. */
bool lh_choices_is_right(const struct lh_choice *item, const double *nats, bool by_length);
/* Share of right items that guessing would have. */
double lh_choices_chance(const struct lh_choices *c);

#endif
