/* test_sdpa_plan.c: cuDNN takes our graphs and picks its fast Hopper engines.
 *
 * Needs libcudnn and the toolkit's stub of libcuda, no GPU: the device is
 * described to cuDNN. The program starts itself again with the stub reachable as
 * libcuda.so.1. Engine numbers are those of cuDNN 9.19; with another version
 * only the workspace formula is checked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cudnn_version.h>

#include "sdpa_plan.h"
#include "sizes.h"

static const char h100[] =
	"{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
	"\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"warpSize\":32,"
	"\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,"
	"\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
	"\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,"
	"\"pciDeviceId\":9008,\"isTccDriver\":0,\"supportCoopLaunch\":1,"
	"\"totalGlobalMem\":85017493504,\"smClockRateKHz\":1980000,"
	"\"memClockRateKHz\":2619000,\"l2CacheSize\":52428800,\"cudaDeviceId\":0,"
	"\"deviceVer\":900,\"driverVer\":13000,"
	"\"deviceName\":\"NVIDIA H100 80GB HBM3\"}";

static struct lh_sdpa_shape shape_of(int heads, int kv_heads, int D, int64_t tokens,
				     int64_t kv_tokens, bool backward)
{
	struct lh_sdpa_shape s = { .batch = 2, .heads = heads, .kv_heads = kv_heads,
				   .head_dim = D, .tokens = tokens,
				   .kv_tokens = kv_tokens, .backward = backward };

	/* Packed rows of q, k, v, as a projection writes them. */
	s.q_row = s.kv_row = (int64_t)(heads + 2 * kv_heads) * D;
	s.o_row = (int64_t)heads * D;
	s.dq_row = backward ? s.q_row : 0;
	s.mask = tokens == kv_tokens ? LH_SDPA_TOP_LEFT : LH_SDPA_BOTTOM_RIGHT;
	return s;
}

static void check(const struct lh_sdpa_shape *s, int64_t engine, int64_t workspace)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t found = 0, bytes = 0;

	if (lh_sdpa_probe(h100, s, &found, &bytes, &err))
		fail_msg("%s", err.text);
	if (CUDNN_MAJOR == 9 && CUDNN_MINOR == 19)
		assert_int_equal(found, engine);
	assert_int_equal(bytes, workspace);
}

static void forward_takes_the_hopper_engine(void **state)
{
	struct lh_sdpa_shape s = shape_of(8, 8, 128, 4096, 4096, false);

	(void)state;
	check(&s, 2, 256);
	s = shape_of(8, 2, 64, 1024, 1024, false);
	check(&s, 2, 256);
	s = shape_of(8, 8, 128, 512, 2048, false);
	check(&s, 2, 256);
	s.mask = LH_SDPA_SHIFTED;
	check(&s, 2, 256);
	s.mask = LH_SDPA_ALL;
	check(&s, 2, 256);
}

static void backward_takes_the_hopper_engine(void **state)
{
	struct lh_sdpa_shape s = shape_of(8, 8, 128, 4096, 4096, true);
	int64_t grouped;

	(void)state;
	check(&s, 6, 256);
	s = shape_of(8, 2, 64, 1024, 1024, true);
	grouped = 2 * 2LL * 8 * 1024 * (64 + 64);
	check(&s, 6, 256 + grouped);
	s = shape_of(8, 8, 128, 512, 2048, true);
	check(&s, 6, 256);
}

/* The shape of one piece, and what lh_cuda_sdpa asks for at least. */
static void check_deterministic(int batch, int heads, int kv_heads, int D, int64_t tokens,
				int64_t kv_tokens)
{
	struct lh_sdpa_shape s = shape_of(heads, kv_heads, D, tokens, kv_tokens, true);
	struct lh_sdpa call = { .heads = { batch, tokens, heads, kv_heads, D, s.q_row,
					   s.kv_row, s.o_row, NULL, NULL }, .kv_tokens = kv_tokens };
	int64_t square = 2LL * batch * heads * tokens * kv_tokens;
	int64_t grouped = heads == kv_heads ? 0 : 4LL * batch * heads * kv_tokens * D;

	s.batch = batch;
	s.deterministic = true;
	check(&s, 6, 256 + square + grouped);
	assert_true((int64_t)lh_sizes_cuda.sdpa_bytes(&call, true, true) >=
		    256 + square + grouped);
}

static void the_deterministic_backward_writes_the_square(void **state)
{
	(void)state;
	check_deterministic(2, 8, 8, 128, 4096, 4096);
	check_deterministic(1, 4, 4, 128, 18432, 18432);
	check_deterministic(2, 8, 8, 64, 640, 640);
	check_deterministic(1, 8, 2, 128, 4096, 4096);
	check_deterministic(2, 3, 3, 80, 128, 384);
	check_deterministic(1, 8, 8, 256, 1024, 1024);
	check_deterministic(1, 1, 1, 128, 98304, 98304);
	check_deterministic(1, 1, 1, 128, 524288, 524288);
}

/* Queries of one sequence and some keys: one call of cuDNN, which `call` needs room for. */
static void check_call(const struct lh_sdpa *call, int64_t tokens, int64_t keys, int mask)
{
	const struct lh_heads *h = &call->heads;
	int64_t grouped = h->heads == h->kv_heads ? 0 : 4LL * h->heads * keys * h->head_dim;

	for (int k = 0; k < 3; k++) { /* forward, backward, with bits that repeat */
		struct lh_sdpa_shape s = shape_of(h->heads, h->kv_heads, h->head_dim, tokens,
						  keys, k);
		int64_t bytes = 256 + (k ? grouped : 0) +
				(k == 2 ? 2LL * h->heads * tokens * keys : 0);

		s.batch = 1;
		s.deterministic = k == 2;
		s.mask = mask;
		if (k && mask == LH_SDPA_ALL)
			s.dq_row = (int64_t)h->heads * h->head_dim;
		check(&s, k ? 6 : 2, bytes);
		assert_true((int64_t)lh_sizes_cuda.sdpa_bytes(call, k, k == 2) >= bytes);
	}
}

/* Piece `number` of a sequence: its queries, and the keys up to its end. `padding` of the
 * queries' tokens are none: where keys come before them the mask is shifted. */
static void check_piece(int heads, int kv_heads, int D, int64_t tokens, int number,
			int64_t padding)
{
	int64_t keys = tokens * (number + 1), row = (int64_t)(heads + 2 * kv_heads) * D;
	struct lh_sdpa call = { .heads = { 1, tokens - padding, heads, kv_heads, D, row, row,
					   (int64_t)heads * D, NULL, NULL },
				.kv_tokens = keys };

	assert_int_equal(lh_sizes_cuda.supports(&call, NULL), 0);
	assert_int_equal(lh_cuda_sdpa_is_tail(&call), number > 0 && !padding);
	if (padding) {
		check_call(&call, tokens, keys, LH_SDPA_SHIFTED);
		return;
	}
	check_call(&call, tokens, tokens, LH_SDPA_TOP_LEFT);
	if (number)
		check_call(&call, tokens, keys - tokens, LH_SDPA_ALL);
}

static void pieces_of_a_sequence_are_planned(void **state)
{
	(void)state;
	for (int number = 0; number < 16; number += 5)
		for (int padding = 0; padding < 128; padding += 64) {
			check_piece(8, 8, 128, 512, number, padding);
			check_piece(8, 2, 64, 256, number, padding);
			check_piece(4, 1, 80, 640, number, padding);
		}
	check_piece(1, 1, 128, 65536, 15, 0);
}

/* A sequence of `rows` that two GPUs share: in four pieces, whose keys and values lie by
 * themselves, in rows of both. q_row: of packed rows, or of a sub-sequence. */
static void check_shared(int64_t rows, int64_t q_row)
{
	int64_t n = rows / 4;

	for (int k = 0; k < 8; k++) {
		int number = k / 2, backward = k % 2;
		struct lh_sdpa_shape s = shape_of(8, 8, 128, n, number ? number * n : n, backward);
		struct lh_sdpa call = { .heads = { 1, n, 8, 8, 128, q_row, 2048, 1024, NULL,
						   NULL }, .kv_tokens = (number + 1) * n };

		s.batch = 1;
		s.q_row = q_row;
		s.dq_row = !backward ? 0 : number ? 1024 : q_row;
		s.kv_row = 2048;
		s.mask = number ? LH_SDPA_ALL : LH_SDPA_TOP_LEFT;
		check(&s, backward ? 6 : 2, 256);
		/* Copies of nothing: cuDNN's own, statistics, and the sum of dq; o or dq of
		 * the keys before, and two more statistics. */
		assert_in_range(lh_sizes_cuda.sdpa_bytes(&call, backward, false), 256,
				8192 + n * 8 * 4 * (backward ? 129 : 1) +
					(number ? n * 8 * (2 * 128 + (backward ? 0 : 8)) : 0));
		assert_int_equal(lh_sizes_cuda.supports(&call, NULL), 0);
	}
}

static void shared_sequences_are_planned(void **state)
{
	(void)state;
	check_shared(98304, 3072);
	check_shared(1 << 20, 3072);
	/* What Lighthouse layers choose of them. */
	check_shared(18432, 1024);
	check_shared(131072, 1024);
	check_shared(65536, 1024);
}

static void a_million_tokens_are_planned(void **state)
{
	struct lh_sdpa_shape s = shape_of(8, 8, 128, 1 << 20, 1 << 20, false);

	(void)state;
	s.batch = 1;
	check(&s, 2, 256);
	s.backward = true;
	check(&s, 6, 256);
}

static void foreign_widths_are_refused_with_a_sentence(void **state)
{
	struct lh_sdpa_shape s = shape_of(8, 3, 128, 1024, 1024, false);
	struct lh_err err = LH_ERR_INIT;
	int64_t engine, bytes;

	(void)state;
	assert_int_equal(lh_sdpa_probe(h100, &s, &engine, &bytes, &err), LH_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "cuDNN"));
}

/* Starts the program again with the toolkit's stub as libcuda.so.1. */
static void with_stub(char **argv)
{
	char dir[] = "/tmp/lh-cuda-stub-XXXXXX", link[80], path[1024];
	const char *old = getenv("LD_LIBRARY_PATH");

	if (getenv("LH_TEST_STUB"))
		return;
	if (!mkdtemp(dir))
		exit(2);
	snprintf(link, sizeof(link), "%s/libcuda.so.1", dir);
	if (symlink(LH_CUDA_LIB "/stubs/libcuda.so", link))
		exit(2);
	snprintf(path, sizeof(path), "%s:%s%s%s", dir, LH_CUDA_LIB, old ? ":" : "",
		 old ? old : "");
	setenv("LD_LIBRARY_PATH", path, 1);
	setenv("LH_TEST_STUB", dir, 1);
	execv("/proc/self/exe", argv);
	exit(2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forward_takes_the_hopper_engine),
		cmocka_unit_test(backward_takes_the_hopper_engine),
		cmocka_unit_test(the_deterministic_backward_writes_the_square),
		cmocka_unit_test(pieces_of_a_sequence_are_planned),
		cmocka_unit_test(shared_sequences_are_planned),
		cmocka_unit_test(a_million_tokens_are_planned),
		cmocka_unit_test(foreign_widths_are_refused_with_a_sentence),
	};
	char link[80];
	int failed;

	(void)argc;
	with_stub(argv);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(link, sizeof(link), "%s/libcuda.so.1", getenv("LH_TEST_STUB"));
	unlink(link);
	rmdir(getenv("LH_TEST_STUB"));
	return failed;
}
