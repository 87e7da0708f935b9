/* link.c: a link as the training thread has it; see link.h and link_int.h. */
#include "train/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "lighthouse/proto.h"
#include "train/link_int.h"

static void notify(struct lh_link *l)
{
	uint64_t one = 1;

	if (write(l->event_fd, &one, 8) < 0)
		lh_error("cannot wake the control thread: %s", strerror(errno));
}

/* Waits are measured by a clock that nobody sets. */
static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t a;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &a);
	pthread_condattr_destroy(&a);
}

/* Known before lhd repeats them: theirs may be the very first steps. */
static void take_held(struct lh_link *l)
{
	json_t *m;
	size_t i;

	json_array_foreach (l->c.held, i, m)
		if (lh__link_is_new(l, lh__link_field(m, "id"))) {
			m = json_copy(m);
			json_object_set_new(m, "m", json_string("command"));
			json_array_append_new(l->inbox, m);
		}
}

int lh_link_open(struct lh_link **out, const struct lh_link_config *c, struct lh_err *err)
{
	struct lh_spool *spool;
	struct lh_link *l;
	int rc;

	if (strlen(c->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		lh_err_set(err, LH_EINVAL, "socket path '%s' is too long", c->socket);
		return lh_err_hint(err, "a state directory with a shorter path");
	}
	rc = lh_spool_open(&spool, c->spool, c->spool_max_bytes, err);
	if (rc)
		return rc;
	l = lh_calloc(1, sizeof(*l));
	l->c = *c;
	l->spool = spool;
	l->token = lh_strdup(c->token);
	l->socket = lh_strdup(c->socket);
	l->spool_path = lh_strdup(c->spool);
	l->event_fd = eventfd(0, EFD_CLOEXEC);
	l->outbox = json_array();
	l->answers = json_array();
	l->inbox = json_array();
	l->held = json_array();
	l->state = "running";
	l->doing = "starting";
	l->fd = -1;
	l->busy = true; /* until it has dialled once */
	l->generation = c->generation;
	take_held(l);
	lh_frame_init(&l->in, LH_PROTO_LINE_MAX_BYTES);
	pthread_mutex_init(&l->mutex, NULL);
	cond_init(&l->arrived);
	cond_init(&l->settled);
	if (l->event_fd < 0 || pthread_create(&l->thread, NULL, lh__link_run, l))
		LH_BUG("no control thread: %s", strerror(errno));
	*out = l;
	return 0;
}

static struct timespec deadline(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

void lh_link_close(struct lh_link *l, int linger_ms)
{
	struct timespec end = deadline(linger_ms);

	notify(l);
	pthread_mutex_lock(&l->mutex);
	while (json_array_size(l->outbox) || json_array_size(l->answers) || l->busy ||
	       (l->unacked && l->connected))
		if (pthread_cond_timedwait(&l->settled, &l->mutex, &end) == ETIMEDOUT)
			break;
	l->closing = true;
	pthread_mutex_unlock(&l->mutex);
	notify(l);
	pthread_join(l->thread, NULL);
	if (json_array_size(l->held))
		lh_error("%zu records could not be written to the spool",
			 json_array_size(l->held));
	lh_spool_close(l->spool);
	close(l->event_fd);
	json_decref(l->outbox);
	json_decref(l->answers);
	json_decref(l->inbox);
	json_decref(l->held);
	pthread_mutex_destroy(&l->mutex);
	pthread_cond_destroy(&l->arrived);
	pthread_cond_destroy(&l->settled);
	lh_frame_release(&l->in);
	lh_buf_release(&l->out);
	free(l->seen);
	free(l->token);
	free(l->socket);
	free(l->spool_path);
	free(l);
}

void lh_link_post_take(struct lh_link *l, json_t *record)
{
	LH_ASSERT(record);
	json_object_set_new(record, "time_ms", json_integer(lh_time_ms()));
	pthread_mutex_lock(&l->mutex);
	json_array_append_new(l->outbox, record);
	l->posted++;
	pthread_mutex_unlock(&l->mutex);
	notify(l);
}

int lh_link_sync(struct lh_link *l, struct lh_err *err)
{
	int64_t posted;

	pthread_mutex_lock(&l->mutex);
	posted = l->posted;
	while (l->spooled < posted)
		pthread_cond_wait(&l->settled, &l->mutex);
	pthread_mutex_unlock(&l->mutex);
	return lh_spool_sync(l->spool_path, err);
}

bool lh_link_answer_take(struct lh_link *l, const json_t *call, json_t *message)
{
	bool wanted;

	LH_ASSERT(message);
	json_object_set_new(message, "call", json_integer(lh__link_field(call, "call")));
	json_object_set_new(message, "line", json_integer(lh__link_field(call, "line")));
	pthread_mutex_lock(&l->mutex);
	wanted = lh__link_field(call, "line") == l->line;
	if (wanted)
		json_array_append_new(l->answers, message);
	else
		json_decref(message);
	pthread_mutex_unlock(&l->mutex);
	notify(l);
	return wanted;
}

void lh_link_status(struct lh_link *l, int64_t step, int phase, const char *state,
		    const char *doing)
{
	pthread_mutex_lock(&l->mutex);
	l->step = step;
	l->phase = phase;
	l->state = state;
	l->doing = doing;
	l->beat++;
	pthread_mutex_unlock(&l->mutex);
}

void lh_link_beat(struct lh_link *l)
{
	pthread_mutex_lock(&l->mutex);
	l->beat++;
	pthread_mutex_unlock(&l->mutex);
}

json_t *lh_link_take(struct lh_link *l, int wait_ms)
{
	struct timespec end = deadline(wait_ms);
	json_t *m = NULL;

	pthread_mutex_lock(&l->mutex);
	while (!json_array_size(l->inbox) && wait_ms > 0)
		if (pthread_cond_timedwait(&l->arrived, &l->mutex, &end) == ETIMEDOUT)
			break;
	if (json_array_size(l->inbox)) {
		m = json_incref(json_array_get(l->inbox, 0));
		json_array_remove(l->inbox, 0);
	}
	pthread_mutex_unlock(&l->mutex);
	return m;
}

bool lh_link_is_ending(struct lh_link *l)
{
	bool ending;

	pthread_mutex_lock(&l->mutex);
	ending = l->ending;
	pthread_mutex_unlock(&l->mutex);
	return ending;
}
