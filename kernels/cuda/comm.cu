/* comm.cu: collectives between GPUs of one host over NCCL; see lighthouse/comm.h.
 *
 * NCCL is opened when a job has ranks: a machine without it trains on one GPU. Words in host
 * memory, and the id by which its ranks find each other, go over MPI's line. Collectives
 * are issued to the device's stream and nobody waits for them here; what NCCL finds wrong
 * meanwhile, a thread of the line asks it for.
 *
 * What is begun beside the device's ops goes to a stream of the line, which waits for what
 * the device's has been given; the device's waits for it when it is awaited. NCCL keeps a
 * communicator's calls in order, whatever stream they go to; so it must those of several
 * communicators, whose kernels could otherwise wait for each other.
 *
 * Memory: NCCL takes its buffers when a device is attached or ranks are split, before it
 * is asked what is left. Those between two ranks it takes when they first send each other
 * something: ranks that are split do so at once. */
#include "vec.cuh"

extern "C" {
#include "lighthouse/comm.h"
}

#if __has_include(<nccl.h>)
#include <dlfcn.h>
#include <errno.h>
#include <nccl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WATCH_MS = 200, LAST_WAIT_S = 5, THREADS = 256 };

struct lh_comm_line {
	struct lh_comm_line *words; /* lh_comm_mpi's: another struct; NULL: alone */
	int rank, size;
	int number;        /* among all ranks, where this is a part */
	struct lh_dev *dev;
	ncclComm_t comm;   /* NULL: no device is attached */
	cudaStream_t beside;               /* the device's ops; NULL likewise */
	cudaEvent_t ready;                 /* what was issued to the device before */
	cudaEvent_t done[LH_COMM_SLOTS];
	pthread_t watch;
	int stop_fd;       /* ends it */
	decltype(&ncclGetVersion) version;
	decltype(&ncclGetUniqueId) make_id;
	decltype(&ncclCommInitRank) init;
	decltype(&ncclCommSplit) split;
	decltype(&ncclCommDestroy) destroy;
	decltype(&ncclCommAbort) abort;
	decltype(&ncclCommGetAsyncError) async_error;
	decltype(&ncclGetErrorString) error_string;
	decltype(&ncclGetLastError) last_error;
	decltype(&ncclReduceScatter) reduce_scatter;
	decltype(&ncclReduce) reduce;
	decltype(&ncclGroupStart) group;
	decltype(&ncclGroupEnd) ungroup;
	decltype(&ncclAllGather) all_gather;
	decltype(&ncclBroadcast) broadcast;
	decltype(&ncclSend) send;
	decltype(&ncclRecv) receive;
};

static int missing(struct lh_err *err, const char *why)
{
	lh_err_set(err, LH_EUNSUPPORTED, "NCCL cannot be used: %.400s", why);
	return lh_err_hint(err, "several GPUs need libnccl.so.2 for CUDA 13; or devices: 1");
}

/* Never closed again, as MPI's is not. */
static int open_library(struct lh_comm_line *l, struct lh_err *err)
{
	struct {
		void *to;
		const char *name;
	} symbols[] = {
		{ &l->version, "ncclGetVersion" },
		{ &l->make_id, "ncclGetUniqueId" },
		{ &l->init, "ncclCommInitRank" },
		{ &l->split, "ncclCommSplit" },
		{ &l->destroy, "ncclCommDestroy" },
		{ &l->abort, "ncclCommAbort" },
		{ &l->async_error, "ncclCommGetAsyncError" },
		{ &l->error_string, "ncclGetErrorString" },
		{ &l->last_error, "ncclGetLastError" },
		{ &l->reduce_scatter, "ncclReduceScatter" },
		{ &l->reduce, "ncclReduce" },
		{ &l->group, "ncclGroupStart" },
		{ &l->ungroup, "ncclGroupEnd" },
		{ &l->all_gather, "ncclAllGather" },
		{ &l->broadcast, "ncclBroadcast" },
		{ &l->send, "ncclSend" },
		{ &l->receive, "ncclRecv" },
	};
	void *library;

	/* NVLink's multicast hangs on some machines. Ranks are on one host and meet over
	 * its loopback, whatever its network is. Buffers are taken now and not in the
	 * first step. Parts have communicators of their own, in use at the same time. */
	setenv("NCCL_NVLS_ENABLE", "0", 0);
	setenv("NCCL_SOCKET_IFNAME", "lo", 0);
	setenv("NCCL_RUNTIME_CONNECT", "0", 0);
	setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
	library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
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

static int nccl_open(struct lh_comm_line **out, int rank, int size, struct lh_err *err)
{
	struct lh_comm_line *l = (struct lh_comm_line *)lh_calloc(1, sizeof(*l));
	int rc = lh_comm_mpi.open(&l->words, rank, size, err);

	*out = NULL;
	if (rc) {
		free(l);
		return rc;
	}
	l->rank = l->number = rank;
	l->size = size;
	*out = l;
	return 0;
}

/* ---- what goes wrong ------------------------------------------------------- */

/* Mostly a peer has died, and its launcher ends this process within a moment: who was lost
 * says so, and not who noticed. */
static void __attribute__((noreturn)) end(struct lh_comm_line *l, ncclResult_t rc)
{
	const struct lh_err *before = &l->dev->failure;

	sleep(LAST_WAIT_S);
	fprintf(stderr, "rank %d: NCCL failed: %s: %s%s%s\n", l->number,
		l->error_string(rc), l->last_error(l->comm), before->code ? "; before it: " : "",
		before->code ? before->text : "");
	alarm(LAST_WAIT_S); /* the communicator's end may wait for the GPU */
	l->abort(l->comm);
	_exit(1);
}

static void check(struct lh_comm_line *l, ncclResult_t rc)
{
	if (rc != ncclSuccess)
		end(l, rc);
}

static void *watch(void *arg)
{
	struct lh_comm_line *l = (struct lh_comm_line *)arg;
	struct pollfd stop = { l->stop_fd, POLLIN, 0 };
	ncclResult_t state;

	while (poll(&stop, 1, WATCH_MS) <= 0) {
		check(l, l->async_error(l->comm, &state));
		if (state != ncclInProgress)
			check(l, state);
	}
	return NULL;
}

static void start_watch(struct lh_comm_line *l)
{
	l->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (l->stop_fd < 0 || pthread_create(&l->watch, NULL, watch, l))
		LH_BUG("nobody to watch NCCL: %s", strerror(errno));
}

static void stop_watch(struct lh_comm_line *l)
{
	uint64_t one = 1;

	if (write(l->stop_fd, &one, sizeof(one)) != sizeof(one))
		LH_BUG("an eventfd cannot be written: %s", strerror(errno));
	pthread_join(l->watch, NULL);
	close(l->stop_fd);
}

/* ---- the device ------------------------------------------------------------ */

/* None begins to wait for one that cannot come. But this rank's `rc` may be of a call of NCCL in
 * which others wait for it, and do not come here: it ends then, and so do they. */
static int agree(struct lh_comm_line *l, int rc, struct lh_err *err)
{
	struct lh_err none = LH_ERR_INIT, own = rc ? *err : none;
	struct lh_comm words = { };

	words.ops = &lh_comm_mpi, words.line = l->words;
	words.rank = l->rank, words.size = l->size;
	if (rc) {
		fprintf(stderr, "rank %d: %s\n", l->number, own.text);
		alarm(LAST_WAIT_S);
	}
	rc = lh_comm_agree(&words, "whether NCCL is there", &own, err);
	alarm(0);
	return rc;
}

static int fail(struct lh_comm_line *l, struct lh_err *err, ncclResult_t rc)
{
	lh_err_set(err, LH_EUNSUPPORTED, "NCCL does not start: %s: %.300s", l->error_string(rc),
		   l->last_error(l->comm));
	return lh_err_hint(err, "NCCL_DEBUG=INFO in lhd's environment makes it say more");
}

/* Its few blocks go before those of a GEMM, in whose queue they would stand. */
static int open_beside(struct lh_comm_line *l, struct lh_err *err)
{
	int least, most;
	cudaError_t rc = cudaDeviceGetStreamPriorityRange(&least, &most);

	if (rc == cudaSuccess)
		rc = cudaStreamCreateWithPriority(&l->beside, cudaStreamNonBlocking, most);
	if (rc == cudaSuccess)
		rc = cudaEventCreateWithFlags(&l->ready, cudaEventDisableTiming);
	for (int i = 0; rc == cudaSuccess && i < LH_COMM_SLOTS; i++)
		rc = cudaEventCreateWithFlags(&l->done[i], cudaEventDisableTiming);
	if (rc == cudaSuccess)
		return 0;
	return lh_err_set(err, LH_EWORKER, "a stream for collectives: %s",
			  cudaGetErrorString(rc));
}

static void close_beside(struct lh_comm_line *l)
{
	for (cudaEvent_t e : l->done)
		if (e)
			cudaEventDestroy(e);
	if (l->ready)
		cudaEventDestroy(l->ready);
	if (l->beside)
		cudaStreamDestroy(l->beside);
}

static int make_id(struct lh_comm_line *l, ncclUniqueId *id, struct lh_err *err)
{
	ncclResult_t made = l->rank ? ncclSuccess : l->make_id(id);
	int rc = made == ncclSuccess ? 0 : fail(l, err, made);

	rc = agree(l, rc, err);
	if (!rc)
		lh_comm_mpi.share(l->words, id, sizeof(*id));
	return rc;
}

static int nccl_attach(struct lh_comm_line *l, struct lh_dev *dev, struct lh_err *err)
{
	size_t used = strlen(dev->opened);
	ncclResult_t made;
	ncclUniqueId id;
	int version = 0, rc = agree(l, open_library(l, err), err);

	l->dev = dev;
	if (!rc)
		rc = make_id(l, &id, err);
	if (rc)
		return rc;
	made = l->init(&l->comm, l->size, id, l->rank);
	if (made == ncclSuccess) {
		start_watch(l);
	} else {
		l->comm = NULL;
		rc = fail(l, err, made);
	}
	if (!rc)
		rc = open_beside(l, err);
	rc = agree(l, rc, err);
	if (rc)
		return rc;
	l->version(&version);
	snprintf(dev->opened + used, sizeof(dev->opened) - used, ", NCCL %d.%d.%d",
		 version / 10000, version / 100 % 100, version % 100);
	return 0;
}

static void nccl_close(struct lh_comm_line *l)
{
	if (l->comm) {
		cudaStreamSynchronize(l->dev->stream);
		if (l->beside)
			cudaStreamSynchronize(l->beside);
		stop_watch(l);
		check(l, l->destroy(l->comm));
	}
	close_beside(l);
	if (l->words)
		lh_comm_mpi.close(l->words);
	free(l);
}

/* The stream of a call: the device's, or the one beside it, where all is over that the
 * device's was given. */
static cudaStream_t stream_of(struct lh_comm_line *l, int slot)
{
	if (slot == LH_COMM_IN_ORDER)
		return l->dev->stream;
	lh_cuda_check(l->dev, "a collective beside", cudaEventRecord(l->ready, l->dev->stream));
	lh_cuda_check(l->dev, "a collective beside",
		      cudaStreamWaitEvent(l->beside, l->ready, 0));
	return l->beside;
}

/* All of a call has been issued. */
static void issued(struct lh_comm_line *l, int slot)
{
	if (slot != LH_COMM_IN_ORDER)
		lh_cuda_check(l->dev, "a collective beside",
			      cudaEventRecord(l->done[slot], l->beside));
}

static void nccl_await(struct lh_comm_line *l, int slot)
{
	lh_cuda_check(l->dev, "a collective beside",
		      cudaStreamWaitEvent(l->dev->stream, l->done[slot], 0));
}

static void nccl_exchange(struct lh_comm_line *l, const struct lh_comm_message *messages,
			  int count, int slot)
{
	cudaStream_t stream = stream_of(l, slot);

	check(l, l->group());
	for (const struct lh_comm_message *m = messages; m < messages + count; m++) {
		if (m->comes)
			check(l, l->receive(m->x, (size_t)m->bytes, ncclInt8, m->peer, l->comm,
					    stream));
		else
			check(l, l->send(m->x, (size_t)m->bytes, ncclInt8, m->peer, l->comm,
					 stream));
	}
	check(l, l->ungroup());
	issued(l, slot);
}

/* A word of scratch to each of the others, and one from each. */
static size_t words_bytes(const struct lh_comm_line *l)
{
	return 2 * (size_t)l->size * sizeof(int32_t);
}

static void connect_all(struct lh_comm_line *l)
{
	int32_t *words = (int32_t *)lh_cuda_scratch(l->dev, words_bytes(l));
	struct lh_comm_message *messages =
		(struct lh_comm_message *)lh_calloc(2 * (size_t)l->size, sizeof(*messages));
	int count = 0;

	for (int r = 0; r < 2 * l->size; r++)
		if (r / 2 != l->rank)
			messages[count++] = { r / 2, r % 2 == 1, words + r, sizeof(*words) };
	nccl_exchange(l, messages, count, LH_COMM_IN_ORDER);
	cudaStreamSynchronize(l->dev->stream);
	free(messages);
}

/* A copy of the line: with the library and the device, and nothing else that is one's own. */
static void begin_part(struct lh_comm_line *part, const struct lh_comm_line *l, int rank,
		       int size)
{
	*part = *l;
	part->rank = rank;
	part->size = size;
	part->words = NULL;
	part->comm = NULL;
	part->beside = NULL;
	part->ready = NULL;
	memset(part->done, 0, sizeof(part->done));
}

/* Parts are told apart by their first rank. */
static int split_gpus(struct lh_comm_line *l, const int *ranks, struct lh_comm_line *part,
		      struct lh_err *err)
{
	ncclResult_t made = l->split(l->comm, part->size > 1 ? ranks[0] : NCCL_SPLIT_NOCOLOR,
				     part->rank, &part->comm, NULL);

	if (made != ncclSuccess) {
		part->comm = NULL;
		return fail(l, err, made);
	}
	if (!part->comm)
		return 0;
	if (!lh_cuda_scratch(part->dev, words_bytes(part))) {
		*err = part->dev->failure;
		return err->code;
	}
	return open_beside(part, err);
}

static int nccl_split(struct lh_comm_line *l, const int *ranks, int rank, int size,
		      struct lh_comm_line **out, struct lh_err *err)
{
	struct lh_comm_line *part = (struct lh_comm_line *)lh_calloc(1, sizeof(*part));
	int rc;

	*out = NULL;
	begin_part(part, l, rank, size);
	lh_comm_mpi.split(l->words, ranks, rank, size, &part->words, err);
	rc = split_gpus(l, ranks, part, err);
	if (part->comm)
		start_watch(part);
	rc = agree(l, rc, err);
	if (rc || !part->comm) {
		nccl_close(part);
		return rc;
	}
	connect_all(part);
	*out = part;
	return 0;
}

/* ---- calls ----------------------------------------------------------------- */

static void nccl_share(struct lh_comm_line *l, void *host, size_t bytes)
{
	lh_comm_mpi.share(l->words, host, bytes);
}

static void nccl_collect(struct lh_comm_line *l, void *host, size_t bytes)
{
	lh_comm_mpi.collect(l->words, host, bytes);
}

__global__ void __launch_bounds__(THREADS)
add_kernel(float *into, const float *x, int64_t n)
{
	int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

	if (i < n)
		into[i] += x[i];
}

static int64_t length(const int64_t *at, int rank)
{
	return at[rank + 1] - at[rank];
}

static bool are_alike(const struct lh_comm_line *l, const int64_t *at)
{
	for (int r = 1; r < l->size; r++)
		if (length(at, r) != length(at, 0))
			return false;
	return true;
}

/* Pieces of any length: a reduction each, and all of them at once. */
static void reduce_each(struct lh_comm_line *l, float *x, const int64_t *at, float *own,
			cudaStream_t stream)
{
	check(l, l->group());
	for (int r = 0; r < l->size; r++)
		if (length(at, r))
			check(l, l->reduce(x + at[r], r == l->rank ? own : NULL,
					   (size_t)length(at, r), ncclFloat32, ncclSum, r,
					   l->comm, stream));
	check(l, l->ungroup());
}

/* With `add` the sum is made in x. */
static void nccl_reduce_scatter(struct lh_comm_line *l, float *x, const int64_t *at,
				float *into, bool add, int slot)
{
	float *piece = x + at[l->rank], *own = add ? piece : into;
	cudaStream_t stream = stream_of(l, slot);
	int64_t n = length(at, l->rank);

	if (are_alike(l, at))
		check(l, l->reduce_scatter(x + at[0], own, (size_t)n, ncclFloat32, ncclSum,
					   l->comm, stream));
	else
		reduce_each(l, x, at, own, stream);
	if (add && n) {
		add_kernel<<<(unsigned)lh_ceil(n, THREADS), THREADS, 0, stream>>>(into, piece,
										  n);
		lh_cuda_launched(l->dev, "a sum over ranks");
	}
	issued(l, slot);
}

/* Pieces of any length: each from its rank, and all of them at once. */
static void send_each(struct lh_comm_line *l, char *x, const int64_t *at, const void *own,
		      cudaStream_t stream)
{
	check(l, l->group());
	for (int r = 0; r < l->size; r++)
		if (length(at, r))
			check(l, l->broadcast(r == l->rank ? own : x + at[r], x + at[r],
					      (size_t)length(at, r), ncclInt8, r, l->comm,
					      stream));
	check(l, l->ungroup());
}

static void nccl_gather(struct lh_comm_line *l, void *x, const int64_t *at_bytes,
			const void *own, int slot)
{
	cudaStream_t stream = stream_of(l, slot);

	if (are_alike(l, at_bytes))
		check(l, l->all_gather(own, (char *)x + at_bytes[0],
				       (size_t)length(at_bytes, 0), ncclInt8, l->comm,
				       stream));
	else
		send_each(l, (char *)x, at_bytes, own, stream);
	issued(l, slot);
}

extern "C" {
extern const struct lh_comm_ops lh_comm_nccl = {
	.name = "nccl",
	.open = nccl_open,
	.attach = nccl_attach,
	.split = nccl_split,
	.close = nccl_close,
	.share = nccl_share,
	.collect = nccl_collect,
	.reduce_scatter = nccl_reduce_scatter,
	.gather = nccl_gather,
	.await = nccl_await,
	.exchange = nccl_exchange,
};
}

#else

static int nccl_open(struct lh_comm_line **line, int rank, int size, struct lh_err *err)
{
	(void)rank, (void)size;
	*line = NULL;
	lh_err_set(err, LH_EUNSUPPORTED, "this build has no NCCL, which several GPUs need");
	return lh_err_hint(err, "make builds it where nccl.h is beside CUDA's headers");
}

extern "C" {
extern const struct lh_comm_ops lh_comm_nccl = { .name = "nccl", .open = nccl_open };
}

#endif
