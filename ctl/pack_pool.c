/* pack_pool.c: threads that make documents of ids out of chunks. See pack.h.
 *
 * Chunks stand in a ring, in the order in which they were cut:
 *
 *   taken ... oldest under way ... next for a thread ... next to be filled
 *
 * A thread owns a chunk from taking it off `next` until it is `done`; the main thread
 * owns all others. */
#include "pack.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "lighthouse/shard.h"

enum { USUAL_BYTES = 2 * PACK_CHUNK_BYTES };

struct pack_pool {
	const char *field;
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
	bool is_usual = c->cap <= USUAL_BYTES && c->id_cap <= USUAL_BYTES;

	for (int i = 0; i < c->piece_count; i++)
		free(c->pieces[i].name);
	c->piece_count = 0;
	if (!is_usual)
		pack_chunk_release(c);
	c->bytes = c->document_count = 0;
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
	free(c->ids);
	free(c->documents);
	memset(c, 0, sizeof(*c));
}

static void add_document(struct pack_chunk *c, const char *text, size_t n, int64_t *used)
{
	struct pack_document *d;
	uint16_t *ids = c->ids + *used;

	if (!n)
		return;
	if (c->document_count == c->document_cap) {
		c->document_cap = c->document_cap ? 2 * c->document_cap : 64;
		c->documents = lh_realloc(c->documents,
					  (size_t)c->document_cap * sizeof(*d));
	}
	d = &c->documents[c->document_count++];
	*d = (struct pack_document){
		*used, (int64_t)n, (double)(XXH64(text, n, 1) >> 11) / 9007199254740992.0 };
	for (size_t i = 0; i < n; i++)
		ids[i] = (unsigned char)text[i];
	ids[n] = LH_BYTES_SEPARATOR;
	*used += (int64_t)n + 1;
}

static int bad_line(const struct pack_pool *p, const struct pack_piece *piece, int64_t line,
		    struct lh_err *err)
{
	lh_err_set(err, LH_EDATA, "'%s' line %" PRId64 ": no text in field '%s'",
		   piece->name, line, p->field);
	return lh_err_hint(err, "--field names the field that holds the text");
}

static bool is_blank(const char *line, int64_t n)
{
	while (n > 0 && strchr(" \t\r", line[n - 1]) && line[n - 1])
		n--;
	return !n;
}

/* Each line's text is shorter than the line: there is room for its ids. */
static int add_lines(const struct pack_pool *p, struct pack_chunk *c,
		     const struct pack_piece *piece, int64_t *used)
{
	const char *at = c->text + piece->from, *end = at + piece->bytes;

	for (int64_t line = piece->line; at < end; line++) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		int64_t n = (stop ? stop : end) - at;
		json_t *row, *value;

		if (!is_blank(at, n)) {
			row = json_loadb(at, (size_t)n, 0, NULL);
			value = json_object_get(row, p->field);
			if (!json_is_string(value)) {
				json_decref(row);
				return bad_line(p, piece, line, &c->err);
			}
			add_document(c, json_string_value(value),
				     json_string_length(value), used);
			json_decref(row);
		}
		at += n + 1;
	}
	return 0;
}

static void make_documents(const struct pack_pool *p, struct pack_chunk *c)
{
	int64_t room = c->bytes + c->piece_count, used = 0;

	if (room > c->id_cap) {
		free(c->ids);
		c->id_cap = room > USUAL_BYTES ? room : USUAL_BYTES;
		c->ids = lh_alloc((size_t)c->id_cap * sizeof(*c->ids));
	}
	for (int i = 0; !c->rc && i < c->piece_count; i++) {
		const struct pack_piece *piece = &c->pieces[i];

		if (piece->jsonl)
			c->rc = add_lines(p, c, piece, &used);
		else
			add_document(c, c->text + piece->from, (size_t)piece->bytes, &used);
	}
}

/* ---- the ring -------------------------------------------------------------- */

static struct pack_chunk *slot(struct pack_pool *p, uint64_t number)
{
	return &p->ring[number % p->slots];
}

static void *work(void *arg)
{
	struct pack_pool *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct pack_chunk *c;

		while (!p->closing && p->next == p->filled)
			pthread_cond_wait(&p->work, &p->lock);
		if (p->closing)
			break;
		c = slot(p, p->next++);
		pthread_mutex_unlock(&p->lock);
		make_documents(p, c);
		pthread_mutex_lock(&p->lock);
		c->done = true;
		pthread_cond_signal(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct pack_pool *pack_pool_new(int threads, const char *field)
{
	struct pack_pool *p = lh_calloc(1, sizeof(*p));

	p->field = field;
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
