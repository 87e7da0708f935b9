/* server_int.h: what server.c and client.c share. */
#ifndef LIGHTHOUSE_SERVER_INT_H
#define LIGHTHOUSE_SERVER_INT_H

#include "base/buf.h"
#include "base/frame.h"
#include "base/listener.h"
#include "control/server.h"

#define LH_READ_BYTES (64u << 10)

struct lh_client {
	struct lh_peer peer;      /* first: a peer is its client */
	struct lh_server *server;
	uv_pipe_t pipe;
	struct lh_frame frame;    /* in */
	bool reading;
	bool pending;             /* the frame may hold a whole line */
	bool eof;                 /* nothing more will come */
	int allowance;            /* calls until the next refill */
	struct lh_buf out;        /* not given to libuv yet */
	struct lh_buf writing;    /* given to it, while write.data is set */
	uv_write_t write;
	struct lh_feed feed;
	bool broken;              /* lost, or too much unread: to be closed */
	bool closing, closed;     /* asked for; done */
	bool due;                 /* in server->due */
	struct lh_client *due_next;
	struct lh_client *next, **link;
};

/* The loop's work is done a turn at a time: whatever happens to a client in
 * callbacks only makes it due, and due clients are served by turn() once before
 * the loop sleeps and once after it woke. */
struct lh_server {
	const struct lh_rpc *rpc; /* set at open */
	uv_loop_t *loop;
	struct lh_listener listener;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;           /* active: somebody is due, do not sleep */
	uv_timer_t refill;        /* active: a guest has used up its calls */
	uv_timer_t gather;        /* the hub's */
	int handles;              /* of these, not closed yet */
	struct lh_hub hub;
	struct lh_client *clients;
	int client_count;
	struct lh_client *due, **due_end;
	bool listening, closing;
	void (*closed_cb)(void *arg);
	void *closed_arg;
	char read_buf[LH_READ_BYTES]; /* libuv reads into it and tells at once */
};

/* Takes the next waiting connection. */
void lh__client_accept(struct lh_server *s);
/* Serves one client: lines, then writes, then what follows from both. */
void lh__client_turn(struct lh_client *c);
/* Ends it; only at the end of a turn, or with the server. Memory goes when the
 * handle is closed and the last call has ended. */
void lh__client_close(struct lh_client *c);

void lh__server_make_due(struct lh_client *c);
/* Of one that closes: it may be freed before the next turn. */
void lh__server_forget_due(struct lh_client *c);
/* A guest waits until its allowance is filled up again. */
void lh__server_await_refill(struct lh_server *s);
/* A client's memory is gone. */
void lh__server_client_gone(struct lh_server *s);

#endif
