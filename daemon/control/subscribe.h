/* subscribe.h: events and steps, pushed to those who asked for them.
 *
 * A hub (one a server) is told what happens and puts it into the feeds (one a
 * connection) with a matching subscription. A feed is a queue of at most
 * LH_FEED_MAX_BYTES; whoever owns the connection takes lines out of it when the
 * peer can read them. A full feed loses its oldest entries, counts them for each
 * subscription, and says so before the next line:
 *
 *   {"method":"event","params":{"subscription":1,...}}   as in job.events
 *   {"method":"step","params":{"subscription":1,"job":7,...}}  as in job.steps
 *   {"method":"lost","params":{"subscription":1,"events":2,"steps":900}}
 *
 * The text of an entry is made once and shared by all feeds. Of a fast job several leave
 * together: a feed that had lines a moment ago is woken when its gap is over, which
 * spares both ends most of the writes and wake-ups. Loop thread.
 */
#ifndef LIGHTHOUSE_SUBSCRIBE_H
#define LIGHTHOUSE_SUBSCRIBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "jobs/jobs.h"
#include "lighthouse/err.h"

#define LH_FEED_MAX_BYTES (512u << 10)
#define LH_FEED_MAX_SUBSCRIPTIONS 64

struct lh_feed;

struct lh_hub {
	struct lh_feed *feeds; /* those with a subscription */
	uv_timer_t *gather;    /* to wake them later; NULL: all are woken at once */
};

struct lh_feed_entry;
struct lh_subscription;

struct lh_feed {
	struct lh_hub *hub;               /* set at init */
	void (*wake)(struct lh_feed *f);  /* there is a line to take */
	struct lh_subscription *subs;     /* private from here */
	int sub_count;
	int64_t last_id;
	struct lh_feed_entry *first, **end;
	size_t used_bytes;
	uint64_t gap_ms, taken_ms;        /* loop time of the last line taken */
	struct lh_feed *next, **link;
};

struct lh_feed_kind {
	const char *method;        /* "event", "step", "lost" */
	int64_t event;             /* id of an event, else 0 */
	int64_t attempt, step;     /* of a step, else 0 */
};

/* Puts it into every feed that wants it. */
void lh_hub_publish(struct lh_hub *hub, const struct lh_event *ev);

/* gap_ms: from the last line that was taken until the next wake. */
void lh_feed_init(struct lh_feed *f, struct lh_hub *hub, uint64_t gap_ms,
		  void (*wake)(struct lh_feed *f));
void lh_feed_release(struct lh_feed *f); /* empty after it; twice is fine */
/* Number of the new subscription, > 0; job 0 = all. LH_ETOOBIG. */
int64_t lh_feed_add(struct lh_feed *f, int64_t job, bool steps, struct lh_err *err);
/* Also forgets what was queued for it. LH_ENOTFOUND. */
int lh_feed_remove(struct lh_feed *f, int64_t subscription, struct lh_err *err);
/* Appends the next line with its newline; false when there is none. */
bool lh_feed_take(struct lh_feed *f, struct lh_buf *out);
/* The same for those who write lines of another form: appends the params alone,
 * {"subscription":...}, and says what they are of. */
bool lh_feed_take_params(struct lh_feed *f, struct lh_feed_kind *kind, struct lh_buf *out);

#endif
