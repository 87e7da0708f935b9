/* comm.h: collectives between the ranks of a job.
 *
 * A job on several devices is a process a device: ranks 0 .. size - 1. They make the
 * same calls in the same order, with the same sizes. How bytes travel is the
 * backend's (lh_ops.comm): MPI between CPU ranks, `kernels/cpu/comm.c`; NCCL between GPUs,
 * `kernels/cuda/comm.cu`, and MPI for what is in host memory. With one rank nothing is
 * opened and every call returns at once.
 *
 * Memory. share and collect are about host memory, in small pieces: what is to be done,
 * and how it went. reduce_scatter, gather and exchange are about memory of the device (ops.h),
 * in order with its ops: of the first two a buffer is `size` pieces, piece r is rank r's.
 *
 * Beside. They may also be begun beside the device's ops, in a slot, and awaited later: they start when all that was issued before is over, one after the other, and run
 * while ops do that are issued after. What is issued after an await finds them done; the host
 * waits for neither. From begin to await what they read is not written, and what they write
 * (of a sum x, too) is not touched. A slot has one at a time. Over MPI they are done at once,
 * when they begin.
 *
 * Parts. Ranks that have something to do among themselves are a comm of their own, by
 * lh_comm_split: every call here is about its ranks, which are counted from 0. All ranks
 * make their calls to a comm and to its part in one order.
 *
 * Determinism. Over MPI, sums are made in ascending order of ranks, whatever the size of a
 * piece. Over NCCL, the same ranks on the same GPUs, library and sizes give the same bits;
 * of two ranks a sum is that of MPI, of more its order is NCCL's.
 *
 * Faults. No call fails: a rank without one of its peers can do nothing for its job. A
 * library that reports an error, now or later, ends the process, and one that waits for ever
 * is ended by its launcher. `note` is told where it is (train/peers.h). So an attempt is
 * lost as one.
 *
 * Training thread only.
 */
#ifndef LIGHTHOUSE_COMM_H
#define LIGHTHOUSE_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lighthouse/err.h"

struct lh_dev;
struct lh_comm_line; /* the backend's */

/* What goes from this rank to another, or comes from there. */
struct lh_comm_message {
	int peer;
	bool comes;
	void *x;
	int64_t bytes; /* a multiple of 4 */
};

enum { LH_COMM_SLOTS = 8, LH_COMM_IN_ORDER = -1 /* with the device's ops: no slot */ };

struct lh_comm_ops {
	const char *name; /* "mpi", "nccl" */
	/* LH_EUNSUPPORTED: a library is missing, or its world is not that of the
	 * launcher. Returns when all ranks are there. */
	int (*open)(struct lh_comm_line **line, int rank, int size, struct lh_err *err);
	/* The device whose memory is meant from here on; it outlives the line. All ranks
	 * have one, and each is another. An error is every rank's, as of lh_comm_agree. */
	int (*attach)(struct lh_comm_line *line, struct lh_dev *dev, struct lh_err *err);
	/* *part: a line between `size` of the ranks, ascending, of which this one is number
	 * `rank`; NULL where it is alone. All ranks call it, each in one part. An error is
	 * every rank's. */
	int (*split)(struct lh_comm_line *line, const int *ranks, int rank, int size,
		     struct lh_comm_line **part, struct lh_err *err);
	/* All ranks have come to their end: waits for them. Of a part: they need not. */
	void (*close)(struct lh_comm_line *line);
	void (*share)(struct lh_comm_line *line, void *host, size_t bytes);
	void (*collect)(struct lh_comm_line *line, void *host, size_t bytes);
	void (*reduce_scatter)(struct lh_comm_line *line, float *x, const int64_t *at,
			       float *into, bool add, int slot);
	void (*gather)(struct lh_comm_line *line, void *x, const int64_t *at_bytes,
		       const void *own, int slot);
	/* NULL: what has begun is done. */
	void (*await)(struct lh_comm_line *line, int slot);
	void (*exchange)(struct lh_comm_line *line, const struct lh_comm_message *messages,
			 int count, int slot);
};

struct lh_comm {
	const struct lh_comm_ops *ops;
	struct lh_comm_line *line; /* NULL: size is 1 */
	int rank, size;
	/* Called before a collective that is about `what` is issued, and after that; NULL:
	 * nobody asks. */
	void (*note)(void *arg, const char *what, bool begins);
	void *note_arg;
};

/* Alone. */
#define LH_COMM_ALONE ((struct lh_comm){ .size = 1 })

/* `what` is a literal, for people: "the gradient". */
/* host (bytes) <- rank 0's. */
void lh_comm_share(const struct lh_comm *c, const char *what, void *host, size_t bytes);
/* host (size, bytes): each rank's piece to all. */
void lh_comm_collect(const struct lh_comm *c, const char *what, void *host, size_t bytes);
/* How it went on all of them: 0, or the code of the first rank in trouble and in *err (NULL:
 * not wanted) what it said, with its number where there are several. `own` is this one's. */
int lh_comm_agree(const struct lh_comm *c, const char *what, const struct lh_err *own,
		  struct lh_err *err);
/* x: piece r is floats at[r] .. at[r + 1] - 1, of any length. into <- the sum of this
 * rank's piece over ranks, or with `add` into and that sum; it may be the piece itself.
 * x is lost. Alone: nothing. */
void lh_comm_reduce_scatter(const struct lh_comm *c, const char *what, float *x,
			    const int64_t *at, float *into, bool add);
/* x: piece r is bytes at_bytes[r] .. at_bytes[r + 1] - 1, a multiple of 4 of them. Each is
 * that rank's `own`, which may be its piece of x. Alone: nothing. */
void lh_comm_gather(const struct lh_comm *c, const char *what, void *x,
		    const int64_t *at_bytes, const void *own);
/* All messages at once. What one rank gives another and what that takes are alike in number
 * and sizes, in the order in which both name them. Alone: nothing. */
void lh_comm_exchange(const struct lh_comm *c, const char *what,
		      const struct lh_comm_message *messages, int count);
/* The same, beside the device's ops: at and messages may go at once. And what is issued from
 * here on comes after what has begun in the slot. Alone: nothing. */
void lh_comm_begin_reduce_scatter(const struct lh_comm *c, const char *what, float *x,
				  const int64_t *at, float *into, bool add, int slot);
void lh_comm_begin_gather(const struct lh_comm *c, const char *what, void *x,
			  const int64_t *at_bytes, const void *own, int slot);
void lh_comm_begin_exchange(const struct lh_comm *c, const char *what,
			    const struct lh_comm_message *messages, int count, int slot);
void lh_comm_await(const struct lh_comm *c, int slot);
/* *part: the ranks that name the same group, in their order here; its notes are c's. All
 * ranks call it, after attach; an error is every rank's. To be closed before c is. */
int lh_comm_split(const struct lh_comm *c, const char *what, int group, struct lh_comm *part,
		  struct lh_err *err);
/* Waits until all ranks do the same; c is alone then. A part only goes. */
void lh_comm_close(struct lh_comm *c);

extern const struct lh_comm_ops lh_comm_mpi, lh_comm_nccl;

#endif
