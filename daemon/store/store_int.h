/* store_int.h: what the files of daemon/store share. For that folder only.
 *
 * The writer thread owns `writer`, `stmt` and `rollup`; the mutex guards what both threads
 * touch; the rest belongs to the loop thread. */
#ifndef LIGHTHOUSE_STORE_INT_H
#define LIGHTHOUSE_STORE_INT_H

#include <pthread.h>

#include "store/rollup.h"
#include "store/store.h"

enum {
	LH_STORE_GROUP_MS = 100,       /* longest wait for company in a transaction */
	LH_STORE_GROUP_MAX = 2000,     /* writes in one transaction */
	LH_STORE_BUSY_MS = 250,        /* SQLite's own wait for a lock */
	LH_STORE_RETRY_MAX_MS = 2000,  /* longest pause between two tries */
	LH_STORE_CLOSE_GRACE_MS = 20000, /* tries after lh_store_close was called */
	LH_STORE_IDLE_READERS = 4,     /* read connections kept open */
};

struct lh_write_op {
	enum lh_stmt stmt;
	int count;
	struct lh_bind *binds; /* their text is owned */
};

struct lh_write {
	struct lh_write *next;
	struct lh_write_op *ops;
	int count, cap;
	bool durable, may_fail;
	lh_store_done done;
	void *arg;
	int rc;         /* outcome, from here down */
	int64_t id;
	struct lh_err err;
};

struct lh_write_list {
	struct lh_write *first, **end; /* end: where the next one is hung */
	size_t count;
};

struct lh_store_sql {
	const char *sql;
	int binds;
};
/* By enum lh_stmt; see statements.c. */
extern const struct lh_store_sql lh_store_sql[LH_STMT_COUNT];

struct lh_store {
	/* set at open */
	uv_loop_t *loop;
	char *path;
	pthread_t thread;
	uv_async_t async;      /* the writer has outcomes, or has ended */

	/* shared, under the mutex */
	pthread_mutex_t mutex;
	pthread_cond_t wake;   /* a write came, or closing */
	struct lh_write_list queue, finished;
	bool durable_queued;
	bool closing, ended;
	char trouble[256];
	sqlite3 *reader[LH_STORE_IDLE_READERS];
	int readers;

	/* writer thread */
	sqlite3 *writer;
	sqlite3_stmt *stmt[LH_STMT_COUNT];
	struct lh_rollup rollup;
	bool synchronous_full;

	/* loop thread */
	size_t backlog;
	char trouble_copy[256];
	int reads_in_flight;
	void (*closed)(void *arg);
	void *closed_arg;
	bool async_closing;
};

/* writer.c */
void *lh_store_writer_main(void *store);
void lh_write_free(struct lh_write *w);
void lh_write_list_init(struct lh_write_list *l);
void lh_write_list_append(struct lh_write_list *l, struct lh_write *w);
/* Moves up to `max` writes from one list to the end of another. */
void lh_write_list_move(struct lh_write_list *to, struct lh_write_list *from, size_t max);

/* statements.c */
int lh_store_bind(sqlite3_stmt *st, const struct lh_bind *binds, int count);

/* read.c */
void lh_store_readers_close(struct lh_store *store);
/* store.c: goes on with closing once nothing is in flight. */
void lh_store_close_step(struct lh_store *store);

/* LH_ESTORE: "cannot DOING 'PATH': SQLite's words", and a hint about the disk. */
int lh_store_fail(struct lh_err *err, sqlite3 *db, const char *doing, const char *path);

#endif
