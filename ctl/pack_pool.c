/* pack_pool.c: threads that make documents of ids out of chunks. See pack.h.
 *
 * Chunks stand in a ring, in the order in which they were cut:
 *
 *   taken ... oldest under way ... next for a thread ... next to be filled
 *
 * A thread owns a chunk from taking it off `next` until it is `done`; the main thread
 * owns all others. */
#include "pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct pack_pool {
	const struct pack_ids *how;
	pthread_t *threads;
	int thread_count;
	struct pack_chunk *ring;
	uint64_t slots;
	int64_t flight_bytes;   /* main thread */
	bool was_taken;         /* main thread: the oldest is to be cleared */

	pthread_mutex_t lock;
	pthread_cond_t work, done;
	uint64_t oldest, next, filled; /* numbers of chunks, by lock */
	bool closing;
};

/* ---- a chunk --------------------------------------------------------------- */

void pack_chunk_clear(struct pack_chunk *c)
{
	bool is_usual = c->cap <= PACK_USUAL_BYTES && c->byte_cap <= PACK_USUAL_BYTES &&
			c->ids.cap <= PACK_USUAL_BYTES;

	for (int i = 0; i < c->piece_count; i++)
		free(c->pieces[i].name);
	c->piece_count = 0;
	if (!is_usual)
		pack_chunk_release(c);
	c->bytes = c->document_count = c->ids.count = 0;
	c->rc = 0;
	c->err = (struct lh_err)LH_ERR_INIT;
	c->done = false;
}

void pack_chunk_release(struct pack_chunk *c)
{
	for (int i = 0; i < c->piece_count; i++)
		free(c->pieces[i].name);
	free(c->text);
	free(c->pieces);
	free(c->byte_ids);
	free(c->ids.ids);
	free(c->documents);
	memset(c, 0, sizeof(*c));
}

/* ---- the ring -------------------------------------------------------------- */

static struct pack_chunk *slot(struct pack_pool *p, uint64_t number)
{
	return &p->ring[number % p->slots];
}

static void *work(void *arg)
{
	struct pack_pool *p = arg;
	struct ctl_tokenizer *t = NULL;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct pack_chunk *c;

		while (!p->closing && p->next == p->filled)
			pthread_cond_wait(&p->work, &p->lock);
		if (p->closing)
			break;
		c = slot(p, p->next++);
		pthread_mutex_unlock(&p->lock);
		pack_documents_make(c, p->how, &t);
		pthread_mutex_lock(&p->lock);
		c->done = true;
		pthread_cond_signal(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
	ctl_tokenizer_close(t);
	return NULL;
}

struct pack_pool *pack_pool_new(int threads, const struct pack_ids *how)
{
	struct pack_pool *p = lh_calloc(1, sizeof(*p));

	p->how = how;
	p->slots = 2 * (uint64_t)threads + 2;
	p->ring = lh_calloc(p->slots, sizeof(*p->ring));
	p->threads = lh_calloc((size_t)threads, sizeof(*p->threads));
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->done, NULL);
	for (; p->thread_count < threads; p->thread_count++)
		if (pthread_create(&p->threads[p->thread_count], NULL, work, p))
			break; /* it goes on with those there are */
	LH_ASSERT(p->thread_count);
	return p;
}

void pack_pool_free(struct pack_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (int i = 0; i < p->thread_count; i++)
		pthread_join(p->threads[i], NULL);
	for (uint64_t i = 0; i < p->slots; i++)
		pack_chunk_release(&p->ring[i]);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->done);
	free(p->ring);
	free(p->threads);
	free(p);
}

static void retire_taken(struct pack_pool *p)
{
	struct pack_chunk *c = slot(p, p->oldest);

	if (!p->was_taken)
		return;
	p->was_taken = false;
	p->flight_bytes -= c->bytes;
	pack_chunk_clear(c);
	p->oldest++;
}

struct pack_chunk *pack_pool_empty(struct pack_pool *p)
{
	retire_taken(p);
	if (p->filled - p->oldest == p->slots ||
	    (p->filled > p->oldest && p->flight_bytes >= PACK_FLIGHT_BYTES))
		return NULL;
	return slot(p, p->filled);
}

void pack_pool_submit(struct pack_pool *p)
{
	p->flight_bytes += slot(p, p->filled)->bytes;
	pthread_mutex_lock(&p->lock);
	p->filled++;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

struct pack_chunk *pack_pool_take(struct pack_pool *p)
{
	struct pack_chunk *c;

	retire_taken(p);
	if (p->oldest == p->filled)
		return NULL;
	c = slot(p, p->oldest);
	pthread_mutex_lock(&p->lock);
	while (!c->done)
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
	p->was_taken = true;
	return c;
}
