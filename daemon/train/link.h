/* link.h: the worker's line to lhd.
 *
 * A control thread dials worker.sock, again and again while nobody is there,
 * speaks proto.h and owns the spool (spool.h). The training thread only posts and
 * takes: it never waits for a socket or a disk. A record is in the spool before
 * it is sent and leaves it once lhd has acknowledged it; after a reconnect the
 * rest is sent again. What a full disk refuses waits in memory. Past the limit of
 * the spool, or of that memory, step records (only) are dropped, counted, and told
 * of in an event.
 *
 * Functions: training thread, unless they say otherwise.
 */
#ifndef LIGHTHOUSE_LINK_H
#define LIGHTHOUSE_LINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"

struct lh_link;

struct lh_link_config {
	int64_t job, attempt;
	int64_t generation;     /* of the lhd that started the worker */
	const char *token;
	const char *socket;     /* absolute path of worker.sock */
	const char *spool;      /* path of the spool file; created, emptied */
	int64_t spool_max_bytes; /* 0: as in spool.h */
	const json_t *held;     /* commands that come first, as in start.json, or NULL */
};

int lh_link_open(struct lh_link **link, const struct lh_link_config *config,
		 struct lh_err *err);
/* Waits until every record is in the spool and, if lhd is there, acknowledged,
 * but `linger_ms` at most; ends the thread and frees. */
void lh_link_close(struct lh_link *link, int linger_ms);

/* Takes a record {t, step, ...}; seq and time_ms are added. Never blocks. */
void lh_link_post_take(struct lh_link *link, json_t *record);
/* Takes a message that answers `call`, as lh_link_take gave it: a piece or the
 * reply; its "call" is added. It is not kept: false when the line that the call
 * came on is gone, and nobody waits for an answer any more. */
bool lh_link_answer_take(struct lh_link *link, const json_t *call, json_t *message);
/* Every record posted so far that the spool could take is in it and outlives the
 * machine. Any thread; waits for the control thread and the disk. */
int lh_link_sync(struct lh_link *link, struct lh_err *err);
/* What progress messages say; `state` and `doing` are string literals. */
void lh_link_status(struct lh_link *link, int64_t step, int phase, const char *state,
		    const char *doing);
/* The training thread gets on; lh_link_status says so too. The saver's thread
 * says it for the training thread that waits for it. */
void lh_link_beat(struct lh_link *link);

/* Next message for the training thread, a command or a call as in proto.h (new
 * reference), each command id once; NULL after wait_ms without one. A worker
 * that lhd refused gets {"m": "refuse"}. */
json_t *lh_link_take(struct lh_link *link, int wait_ms);
/* Whether a message that ends the worker has come, taken or not: a stop, a cancel,
 * a refusal. */
bool lh_link_is_ending(struct lh_link *link);

#endif
