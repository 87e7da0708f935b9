/* bare.cuh: NCCL as anybody would use it, on a communicator and a stream of its own: what
 * our collectives are timed beside. */
#ifndef LIGHTHOUSE_TESTS_BARE_CUH
#define LIGHTHOUSE_TESTS_BARE_CUH

#include <dlfcn.h>
#include <nccl.h>

#include "ranks.cuh"

struct bare {
	ncclComm_t comm;
	cudaStream_t stream;
	decltype(&ncclReduceScatter) reduce_scatter;
	decltype(&ncclAllGather) all_gather;
	decltype(&ncclSend) send;
	decltype(&ncclRecv) receive;
	decltype(&ncclGroupStart) group;
	decltype(&ncclGroupEnd) ungroup;
	decltype(&ncclCommDestroy) destroy;
};

static inline void bare_open(struct bare *b, const struct lh_comm *c)
{
	void *library = dlopen("libnccl.so.2", RTLD_NOW);
	ncclUniqueId id;

	ranks_must(library, "libnccl.so.2");
	auto make = (decltype(&ncclGetUniqueId))dlsym(library, "ncclGetUniqueId");
	auto init = (decltype(&ncclCommInitRank))dlsym(library, "ncclCommInitRank");
	b->reduce_scatter = (decltype(&ncclReduceScatter))dlsym(library, "ncclReduceScatter");
	b->all_gather = (decltype(&ncclAllGather))dlsym(library, "ncclAllGather");
	b->send = (decltype(&ncclSend))dlsym(library, "ncclSend");
	b->receive = (decltype(&ncclRecv))dlsym(library, "ncclRecv");
	b->group = (decltype(&ncclGroupStart))dlsym(library, "ncclGroupStart");
	b->ungroup = (decltype(&ncclGroupEnd))dlsym(library, "ncclGroupEnd");
	b->destroy = (decltype(&ncclCommDestroy))dlsym(library, "ncclCommDestroy");
	ranks_must(c->rank || make(&id) == ncclSuccess, "ncclGetUniqueId");
	lh_comm_share(c, "an id", &id, sizeof(id));
	ranks_must(init(&b->comm, c->size, id, c->rank) == ncclSuccess, "ncclCommInitRank");
	ranks_must(cudaStreamCreate(&b->stream) == cudaSuccess, "cudaStreamCreate");
}

static inline void bare_close(struct bare *b)
{
	b->destroy(b->comm);
	cudaStreamDestroy(b->stream);
}

/* Of `bytes` a rank, in x (ranks, bytes), this one's at `own`. */
static inline void bare_gather(const struct bare *b, void *x, const void *own, int64_t bytes)
{
	ranks_must(b->all_gather(own, x, (size_t)bytes, ncclInt8, b->comm, b->stream) ==
		   ncclSuccess, "ncclAllGather");
}

static inline void bare_sum(const struct bare *b, float *x, float *own, int64_t bytes)
{
	ranks_must(b->reduce_scatter(x, own, (size_t)bytes / sizeof(*x), ncclFloat32, ncclSum,
				     b->comm, b->stream) == ncclSuccess, "ncclReduceScatter");
}

/* One message from `own` to each of the others, and one from each to their place in x (ranks,
 * place); of so many bytes, by rank. */
static inline void bare_messages(const struct bare *b, const struct lh_comm *c, void *x,
				 const void *own, int64_t place, const int64_t *to,
				 const int64_t *from)
{
	bool good = b->group() == ncclSuccess;

	for (int r = 0; r < c->size; r++) {
		if (r == c->rank)
			continue;
		good &= b->send(own, (size_t)to[r], ncclInt8, r, b->comm, b->stream) ==
			ncclSuccess;
		good &= b->receive((char *)x + r * place, (size_t)from[r], ncclInt8, r,
				   b->comm, b->stream) == ncclSuccess;
	}
	ranks_must(good && b->ungroup() == ncclSuccess, "ncclSend, ncclRecv");
}

/* The same, all of `bytes`. */
static inline void bare_exchange(const struct bare *b, const struct lh_comm *c, void *x,
				 const void *own, int64_t bytes)
{
	std::vector<int64_t> all((size_t)c->size, bytes);

	bare_messages(b, c, x, own, bytes, all.data(), all.data());
}

#endif
