/* comm.c: collectives between CPU ranks over MPI; see lighthouse/comm.h. GPUs' ranks speak
 * by it of what is in host memory.
 *
 * MPICH, or any library of its binary interface, is opened when a job has ranks: a
 * program that links this needs none. Only messages between two ranks are used, and
 * sums are made here, in the order of ranks: which of its algorithms a library takes
 * depends on sizes and machines.
 *
 * A wait gives the processor away: ranks may outnumber processors, and MPICH's own
 * waits spin. It begins with yields, since a step's collectives are short. */
#include "lighthouse/comm.h"

#include <stdlib.h>
#include <string.h>

#ifdef LH_HAVE_MPI
#include <dlfcn.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* Of a message: what is summed at once stays in the cache, per rank. */
enum { PIECE_FLOATS = 1 << 16, YIELDS = 2000, NAP_NS = 50000, LONG_NAPS = 20000,
       LONG_NAP_NS = 1000000, LAST_WAIT_S = 5 };

struct lh_comm_line {
	int (*init)(int *argc, char ***argv, int wanted, int *given);
	int (*finalize)(void);
	int (*set_handler)(MPI_Comm comm, MPI_Errhandler handler);
	int (*error_string)(int code, char *text, int *length);
	int (*rank_of)(MPI_Comm comm, int *rank);
	int (*size_of)(MPI_Comm comm, int *size);
	int (*send)(const void *x, int count, MPI_Datatype type, int to, int tag,
		    MPI_Comm comm, MPI_Request *request);
	int (*receive)(void *x, int count, MPI_Datatype type, int from, int tag,
		       MPI_Comm comm, MPI_Request *request);
	int (*test_all)(int count, MPI_Request *requests, int *done, MPI_Status *statuses);
	int rank, size;
	int *world;            /* (size) the ranks' numbers in MPI's world */
	bool is_part;
	MPI_Request *requests; /* (room) of what is under way */
	int room, pending;
	float *theirs;         /* (size, PIECE_FLOATS) */
};

static int missing(struct lh_err *err, const char *why)
{
	lh_err_set(err, LH_EUNSUPPORTED, "MPI cannot be used: %s", why);
	return lh_err_hint(err, "ranks need MPICH; on Debian: apt-get install mpich");
}

/* Never closed again: libraries of its kind do not survive that. */
static int open_library(struct lh_comm_line *l, struct lh_err *err)
{
	struct {
		void *to;
		const char *name;
	} symbols[] = {
		{ &l->init, "MPI_Init_thread" },  { &l->finalize, "MPI_Finalize" },
		{ &l->set_handler, "MPI_Comm_set_errhandler" },
		{ &l->error_string, "MPI_Error_string" },
		{ &l->rank_of, "MPI_Comm_rank" }, { &l->size_of, "MPI_Comm_size" },
		{ &l->send, "MPI_Isend" },        { &l->receive, "MPI_Irecv" },
		{ &l->test_all, "MPI_Testall" },
	};
	void *library;

	/* Its transport would take over the signals of crashes. Ranks are on one host,
	 * and shared memory is enough: copies out of another process abort when that has
	 * died, and over sockets MPI_Finalize may wait for ever. For those that were joined
	 * join/join.c has chosen. */
	setenv("UCX_HANDLE_ERRORS", "none", 0);
	setenv("UCX_ERROR_SIGNALS", "", 0);
	setenv("UCX_TLS", "self,posix,sysv", 0);
	library = dlopen("libmpich.so.12", RTLD_NOW | RTLD_LOCAL);
	if (!library) /* the common name of libraries with that interface */
		library = dlopen("libmpi.so.12", RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return missing(err, dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *f = dlsym(library, symbols[i].name);

		if (!f)
			return missing(err, dlerror());
		memcpy(symbols[i].to, &f, sizeof(f));
	}
	return 0;
}

static void make_room(struct lh_comm_line *l, int requests)
{
	if (requests <= l->room)
		return;
	l->requests = lh_realloc(l->requests, (size_t)requests * sizeof(*l->requests));
	l->room = requests;
}

static void take_memory(struct lh_comm_line *l)
{
	l->world = lh_calloc((size_t)l->size, sizeof(*l->world));
	l->requests = NULL; /* a part begins as a copy */
	l->room = 0;
	make_room(l, 2 * l->size);
	l->theirs = lh_calloc((size_t)l->size * PIECE_FLOATS, sizeof(*l->theirs));
}

static int mpi_open(struct lh_comm_line **out, int rank, int size, struct lh_err *err)
{
	struct lh_comm_line *l = lh_calloc(1, sizeof(*l));
	int rc = open_library(l, err), given;

	*out = NULL;
	if (rc) {
		free(l);
		return rc;
	}
	l->init(NULL, NULL, MPI_THREAD_FUNNELED, &given);
	l->set_handler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	l->rank_of(MPI_COMM_WORLD, &l->rank);
	l->size_of(MPI_COMM_WORLD, &l->size);
	if (l->rank != rank || l->size != size) {
		lh_err_set(err, LH_EUNSUPPORTED, "MPI says rank %d of %d, the launcher %d of "
			   "%d", l->rank, l->size, rank, size);
		lh_err_hint(err, "start ranks with the mpiexec of the same library");
		l->finalize();
		free(l);
		return err->code;
	}
	take_memory(l);
	for (int r = 0; r < size; r++)
		l->world[r] = r;
	*out = l;
	return 0;
}

static void leave(struct lh_comm_line *l);

/* Its memory is the host's. */
static int mpi_attach(struct lh_comm_line *l, struct lh_dev *dev, struct lh_err *err)
{
	(void)l, (void)dev, (void)err;
	return 0;
}

/* Messages go over MPI's world as before: those between two ranks come in the order in
 * which both make their calls, whatever comm each is of. */
static int mpi_split(struct lh_comm_line *l, const int *ranks, int rank, int size,
		     struct lh_comm_line **out, struct lh_err *err)
{
	struct lh_comm_line *part;

	(void)err;
	*out = NULL;
	if (size == 1)
		return 0;
	part = lh_calloc(1, sizeof(*part));
	*part = *l;
	part->rank = rank;
	part->size = size;
	part->is_part = true;
	take_memory(part);
	for (int r = 0; r < size; r++)
		part->world[r] = l->world[ranks[r]];
	*out = part;
	return 0;
}

static void mpi_close(struct lh_comm_line *l)
{
	if (!l->is_part)
		leave(l);
	free(l->world);
	free(l->requests);
	free(l->theirs);
	free(l);
}

/* ---- messages -------------------------------------------------------------- */

/* Mostly a peer has died, and its launcher ends this process within a moment: who was lost
 * says so, and not who noticed. */
static void check(const struct lh_comm_line *l, int rc)
{
	char text[MPI_MAX_ERROR_STRING] = "";
	int length;

	if (rc == MPI_SUCCESS)
		return;
	sleep(LAST_WAIT_S);
	l->error_string(rc, text, &length);
	fprintf(stderr, "rank %d: MPI failed: %s\n", l->world[l->rank], text);
	_exit(1);
}

static void begin_send(struct lh_comm_line *l, int to, const void *x, size_t bytes)
{
	check(l, l->send(x, (int)bytes, MPI_BYTE, l->world[to], 0, MPI_COMM_WORLD,
			 &l->requests[l->pending++]));
}

static void begin_receive(struct lh_comm_line *l, int from, void *x, size_t bytes)
{
	check(l, l->receive(x, (int)bytes, MPI_BYTE, l->world[from], 0, MPI_COMM_WORLD,
			    &l->requests[l->pending++]));
}

static void wait_all(struct lh_comm_line *l)
{
	struct timespec nap = { .tv_nsec = NAP_NS };
	int done = 0;

	for (int64_t turn = 0;; turn++) {
		check(l, l->test_all(l->pending, l->requests, &done, MPI_STATUSES_IGNORE));
		if (done)
			break;
		if (turn < YIELDS) {
			sched_yield();
			continue;
		}
		if (turn == YIELDS + LONG_NAPS) /* a pause, or a save: seconds */
			nap.tv_nsec = LONG_NAP_NS;
		nanosleep(&nap, NULL);
	}
	l->pending = 0;
}

/* Bytes of a piece of `bytes` in a message that begins at `from`. */
static size_t bytes_of(size_t bytes, size_t from)
{
	const size_t most = PIECE_FLOATS * sizeof(float);

	return bytes < from ? 0 : bytes - from < most ? bytes - from : most;
}

static void mpi_share(struct lh_comm_line *l, void *host, size_t bytes)
{
	for (size_t at = 0, n; at < bytes; at += n) {
		n = bytes_of(bytes, at);
		if (l->rank)
			begin_receive(l, 0, (char *)host + at, n);
		for (int r = 1; !l->rank && r < l->size; r++)
			begin_send(l, r, (char *)host + at, n);
		wait_all(l);
	}
}

/* Piece r of all, from at[r] on, is rank r's. */
static void gather(struct lh_comm_line *l, char *all, const int64_t *at)
{
	size_t longest = 0;

	for (int r = 0; r < l->size; r++)
		if ((size_t)(at[r + 1] - at[r]) > longest)
			longest = (size_t)(at[r + 1] - at[r]);
	for (size_t i = 0; i < longest; i += PIECE_FLOATS * sizeof(float)) {
		size_t own = bytes_of((size_t)(at[l->rank + 1] - at[l->rank]), i);

		for (int r = 0; r < l->size; r++) {
			size_t n = bytes_of((size_t)(at[r + 1] - at[r]), i);

			if (r == l->rank)
				continue;
			if (n)
				begin_receive(l, r, all + at[r] + i, n);
			if (own)
				begin_send(l, r, all + at[l->rank] + i, own);
		}
		wait_all(l);
	}
}

static void mpi_collect(struct lh_comm_line *l, void *host, size_t bytes)
{
	int64_t *at = lh_calloc((size_t)l->size + 1, sizeof(*at));

	for (int r = 0; r <= l->size; r++)
		at[r] = r * (int64_t)bytes;
	gather(l, host, at);
	free(at);
}

/* Over sockets MPI_Finalize may wait for one that does not listen any more. A rank alone with
 * its launcher's proxy, as those are that have no memory in common, may go without. */
static void leave(struct lh_comm_line *l)
{
	const char *beside = getenv("MPI_LOCALNRANKS");
	char *all;

	if (!beside || strcmp(beside, "1")) {
		l->finalize();
		return;
	}
	all = lh_calloc((size_t)l->size, 1);
	mpi_collect(l, all, 1); /* nobody waits for more */
	free(all);
}

/* into (n) <- [into +] the sum of theirs and its own, in the order of ranks. */
static void add_up(const struct lh_comm_line *l, const float *own, int64_t n, float *into,
		   bool add)
{
	for (int64_t i = 0; i < n; i++) {
		float sum = 0;

		for (int r = 0; r < l->size; r++)
			sum += r == l->rank ? own[i] : l->theirs[(size_t)r * PIECE_FLOATS + i];
		into[i] = add ? into[i] + sum : sum;
	}
}

/* Floats of a piece of `count` in a message that begins at `from`. */
static int64_t floats_of(int64_t count, int64_t from)
{
	int64_t rest = count - from;

	return rest < 0 ? 0 : rest < PIECE_FLOATS ? rest : PIECE_FLOATS;
}

/* In any slot at once: there is nothing for it to run beside. */
static void mpi_reduce_scatter(struct lh_comm_line *l, float *x, const int64_t *at,
			       float *into, bool add, int slot)
{
	int64_t longest = 0;

	(void)slot;
	for (int r = 0; r < l->size; r++)
		longest = at[r + 1] - at[r] > longest ? at[r + 1] - at[r] : longest;
	for (int64_t i = 0; i < longest; i += PIECE_FLOATS) {
		int64_t own = floats_of(at[l->rank + 1] - at[l->rank], i);

		for (int r = 0; r < l->size; r++) {
			int64_t n = floats_of(at[r + 1] - at[r], i);

			if (r == l->rank)
				continue;
			if (own)
				begin_receive(l, r, l->theirs + (size_t)r * PIECE_FLOATS,
					      (size_t)own * sizeof(*x));
			if (n)
				begin_send(l, r, x + at[r] + i, (size_t)n * sizeof(*x));
		}
		wait_all(l);
		add_up(l, x + at[l->rank] + i, own, into + i, add);
	}
}

static void mpi_gather(struct lh_comm_line *l, void *x, const int64_t *at_bytes,
		       const void *own, int slot)
{
	int64_t bytes = at_bytes[l->rank + 1] - at_bytes[l->rank];

	(void)slot;
	if (bytes)
		memmove((char *)x + at_bytes[l->rank], own, (size_t)bytes);
	gather(l, x, at_bytes);
}

/* Both ends of a message come to a part of it in the same turn. */
static void mpi_exchange(struct lh_comm_line *l, const struct lh_comm_message *messages,
			 int count, int slot)
{
	size_t longest = 0;

	(void)slot;
	make_room(l, count);
	for (int i = 0; i < count; i++)
		if ((size_t)messages[i].bytes > longest)
			longest = (size_t)messages[i].bytes;
	for (size_t at = 0; at < longest; at += PIECE_FLOATS * sizeof(float)) {
		for (int i = 0; i < count; i++) {
			const struct lh_comm_message *m = &messages[i];
			size_t n = bytes_of((size_t)m->bytes, at);

			if (n && m->comes)
				begin_receive(l, m->peer, (char *)m->x + at, n);
			else if (n)
				begin_send(l, m->peer, (char *)m->x + at, n);
		}
		wait_all(l);
	}
}

const struct lh_comm_ops lh_comm_mpi = {
	.name = "mpi",
	.open = mpi_open,
	.attach = mpi_attach,
	.split = mpi_split,
	.close = mpi_close,
	.share = mpi_share,
	.collect = mpi_collect,
	.reduce_scatter = mpi_reduce_scatter,
	.gather = mpi_gather,
	.exchange = mpi_exchange,
};

#else

static int mpi_open(struct lh_comm_line **line, int rank, int size, struct lh_err *err)
{
	(void)rank, (void)size;
	*line = NULL;
	lh_err_set(err, LH_EUNSUPPORTED, "this build has no MPI, which ranks need");
	return lh_err_hint(err, "on Debian: apt-get install libmpich-dev mpich, then make");
}

const struct lh_comm_ops lh_comm_mpi = { .name = "mpi", .open = mpi_open };

#endif
