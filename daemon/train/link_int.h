/* link_int.h: what the two sides of a link share behind link.h.
 *
 *   link.c       the training thread's: opening, posting, taking, closing
 *   link_line.c  the control thread: the socket and the spool
 *
 * The mutex guards what both use: outbox, inbox, status. All else belongs to the
 * control thread once it runs.
 */
#ifndef LIGHTHOUSE_LINK_INT_H
#define LIGHTHOUSE_LINK_INT_H

#include <pthread.h>

#include "base/buf.h"
#include "base/frame.h"
#include "train/link.h"
#include "train/spool.h"

struct lh_link {
	/* set at open */
	struct lh_link_config c;
	char *token, *socket, *spool_path;
	int event_fd;
	pthread_t thread;

	/* shared, under the mutex */
	pthread_mutex_t mutex;
	pthread_cond_t arrived; /* something in the inbox */
	pthread_cond_t settled; /* what was posted has gone further */
	json_t *outbox;         /* records not in the spool yet */
	json_t *answers;        /* to calls; "line" tells on which connection */
	json_t *inbox;
	int64_t step;
	int phase;
	const char *state, *doing;
	int64_t beat;           /* times the training thread was heard of */
	bool ending;            /* a message came that ends the worker */
	bool closing, connected;
	bool busy;              /* the control thread holds what it took */
	int64_t unacked;        /* records that lhd does not have */
	int64_t posted, spooled; /* records ever; spooled: or held, or dropped */
	int64_t line;           /* number of this connection */

	/* control thread */
	int fd;                 /* -1: not connected */
	bool welcome;
	int64_t generation;     /* highest seen */
	int64_t dial_at_us, progress_at_us;
	const char *told_doing; /* in the last progress message on this line */
	struct lh_frame in;
	struct lh_buf out;
	struct lh_spool *spool;
	json_t *held;           /* records that the spool could not take yet */
	int64_t sent_seq, dropped;
	int64_t *seen;          /* command ids */
	size_t seen_count;
};

/* The control thread, until `closing`. */
void *lh__link_run(void *link);
/* Whether a command comes for the first time; from then on it is known. */
bool lh__link_is_new(struct lh_link *l, int64_t id);

static inline int64_t lh__link_field(const json_t *m, const char *name)
{
	return json_integer_value(json_object_get(m, name));
}

#endif
