/* dev.cu: a GPU as a device: its stream, memory and transfers.
 *
 * put returns when the host buffer may be reused: up to LH_CUDA_STAGE_BYTES go
 * through a pinned buffer without waiting for the stream; more waits. fetch
 * waits. cuDNN is loaded here for bf16, so that a machine without it is refused
 * before any work starts. */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vec.cuh"

/* "90a" of the build's CUDA_ARCH: compute capability 9.0. */
static const int BUILT_FOR = atoi(LH_CUDA_ARCH);

void lh_cuda_refuse(struct lh_dev *dev, const struct lh_err *why)
{
	if (!dev->failure.code)
		dev->failure = *why;
}

void lh_cuda_fail(struct lh_dev *dev, const char *what, const char *detail)
{
	struct lh_err why;

	lh_err_set(&why, LH_EWORKER, "'%.60s' failed on the GPU: %.420s", what, detail);
	lh_cuda_refuse(dev, &why);
}

bool lh_cuda_check(struct lh_dev *dev, const char *what, cudaError_t rc)
{
	if (rc != cudaSuccess)
		lh_cuda_fail(dev, what, cudaGetErrorString(rc));
	return rc == cudaSuccess;
}

void lh_cuda_launched(struct lh_dev *dev, const char *what)
{
	lh_cuda_check(dev, what, cudaGetLastError());
}

/* *p, of *have bytes, is made larger if it must be. */
static void *grow(struct lh_dev *dev, void **p, size_t *have, size_t bytes)
{
	size_t whole = (bytes + (1 << 20) - 1) >> 20 << 20;

	if (whole <= *have)
		return *p;
	lh_cuda_check(dev, "scratch", cudaStreamSynchronize(dev->stream));
	cudaFree(*p);
	*p = NULL;
	*have = 0;
	dev->preparations++;
	if (cudaMalloc(p, whole) != cudaSuccess) {
		struct lh_err why;

		cudaGetLastError(); /* not sticky: do not report it twice */
		lh_err_set(&why, LH_ETOOBIG, "the GPU has no memory for %zu MiB of scratch",
			   whole >> 20);
		lh_err_hint(&why, "a smaller seq_len or micro_sequences, or more "
			    "recomputation");
		lh_cuda_refuse(dev, &why);
		*p = NULL;
		return NULL;
	}
	*have = whole;
	return *p;
}

void *lh_cuda_scratch(struct lh_dev *dev, size_t bytes)
{
	return grow(dev, &dev->scratch, &dev->scratch_bytes, bytes);
}

void *lh_cuda_packed(struct lh_dev *dev, size_t bytes)
{
	return grow(dev, &dev->packed, &dev->packed_bytes, bytes);
}

/* ---- opening --------------------------------------------------------------- */

static int refuse(struct lh_dev *dev, struct lh_err *err, const char *what,
		  cudaError_t rc)
{
	lh_cuda_close(dev);
	lh_err_set(err, LH_EUNSUPPORTED, "'%s': %s", what, cudaGetErrorString(rc));
	return lh_err_hint(err, "an NVIDIA GPU of compute capability %d.%d and a driver "
			   "for CUDA 13 are needed; 'device: cpu' needs neither", BUILT_FOR / 10,
			   BUILT_FOR % 10);
}

static int open_stages(struct lh_dev *dev)
{
	for (int i = 0; i < LH_CUDA_STAGES; i++) {
		if (cudaHostAlloc((void **)&dev->stage[i], LH_CUDA_STAGE_BYTES,
				  cudaHostAllocDefault) != cudaSuccess ||
		    cudaEventCreateWithFlags(&dev->staged[i], cudaEventDisableTiming) !=
			    cudaSuccess)
			return -1;
	}
	return 0;
}

/* The properties of a device, if this build runs on it. */
static int look_at_device(int number, cudaDeviceProp *prop, struct lh_err *err)
{
	cudaError_t rc = cudaGetDeviceProperties(prop, number);

	if (rc != cudaSuccess)
		return refuse(NULL, err, "cuda device", rc);
	if (prop->major == BUILT_FOR / 10 && prop->minor == BUILT_FOR % 10)
		return 0;
	lh_err_set(err, LH_EUNSUPPORTED,
		   "'%s' has compute capability %d.%d, this build is for %d.%d", prop->name,
		   prop->major, prop->minor, BUILT_FOR / 10, BUILT_FOR % 10);
	return lh_err_hint(err, "'device: cpu', or a GPU that this build is for (9.0: H100, "
			   "H200); make CUDA_ARCH=%d%d builds for this one, untested",
			   prop->major, prop->minor);
}

/* As nvidia-smi writes it. */
static void write_uuid(char *out, size_t room, const cudaUUID_t *uuid)
{
	size_t used = (size_t)snprintf(out, room, "GPU");

	for (int i = 0; i < 16; i++)
		used += (size_t)snprintf(out + used, room - used, "%s%02x",
					 !i || (i >= 4 && i <= 10 && i % 2 == 0) ? "-" : "",
					 (unsigned)(unsigned char)uuid->bytes[i]);
}

/* From this one on; ranks are to find what was found of the first. */
static int count_alike(int number, const cudaDeviceProp *prop)
{
	int all = 0, n = 1;

	cudaGetDeviceCount(&all);
	for (cudaDeviceProp p; number + n < all; n++)
		if (cudaGetDeviceProperties(&p, number + n) != cudaSuccess ||
		    strcmp(p.name, prop->name) || p.totalGlobalMem != prop->totalGlobalMem)
			break;
	return n;
}

int lh_cuda_probe(int number, struct lh_device_info *info, struct lh_err *err)
{
	cudaDeviceProp prop;
	int rc = look_at_device(number, &prop, err);

	if (!rc)
		rc = lh_sdpa_check_library(err);
	if (rc)
		return rc;
	snprintf(info->name, sizeof(info->name), "%.127s", prop.name);
	info->memory_bytes = (int64_t)prop.totalGlobalMem;
	write_uuid(info->uuid, sizeof(info->uuid), &prop.uuid);
	info->count = count_alike(number, &prop);
	return 0;
}

static int open_device(struct lh_dev *dev, bool with_cudnn, struct lh_err *err)
{
	cudaDeviceProp prop;
	cudaError_t rc;
	int code = look_at_device(0, &prop, err);

	if (code) {
		lh_cuda_close(dev);
		return code;
	}
	dev->sms = prop.multiProcessorCount;
	snprintf(dev->gpu, sizeof(dev->gpu), "%.127s", prop.name);
	rc = cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking);
	if (rc == cudaSuccess && open_stages(dev))
		rc = cudaGetLastError();
	if (rc == cudaSuccess)
		rc = cudaMalloc(&dev->gemm_work, LH_GEMM_WORK_BYTES);
	if (rc != cudaSuccess)
		return refuse(dev, err, "cuda stream and buffers", rc);
	if (cublasLtCreate(&dev->lt) != CUBLAS_STATUS_SUCCESS) {
		lh_cuda_close(dev);
		return lh_err_set(err, LH_EUNSUPPORTED, "'cublasLt' does not start");
	}
	snprintf(dev->opened, sizeof(dev->opened), "cuda, %.100s, %d SMs, %zu MiB, cuBLASLt %zu",
		 prop.name, dev->sms, prop.totalGlobalMem >> 20, cublasLtGetVersion());
	if (!with_cudnn)
		return 0;
	code = lh_sdpa_plans_new(&dev->plans, dev->stream, err);
	if (code)
		lh_cuda_close(dev);
	return code;
}

int lh_cuda_open_bf16(struct lh_dev **out, int threads, struct lh_err *err)
{
	struct lh_dev *dev = (struct lh_dev *)lh_calloc(1, sizeof(*dev));
	int rc;

	(void)threads;
	rc = open_device(dev, true, err);
	*out = rc ? NULL : dev;
	return rc;
}

int lh_cuda_open_f32(struct lh_dev **out, int threads, struct lh_err *err)
{
	struct lh_dev *dev = (struct lh_dev *)lh_calloc(1, sizeof(*dev));
	int rc;

	(void)threads;
	rc = open_device(dev, false, err);
	*out = rc ? NULL : dev;
	return rc;
}

void lh_cuda_close(struct lh_dev *dev)
{
	if (!dev)
		return;
	if (dev->stream)
		cudaStreamSynchronize(dev->stream);
	lh_sdpa_plans_free(dev->plans);
	lh_cuda_gemms_free(dev);
	if (dev->lt)
		cublasLtDestroy(dev->lt);
	for (int i = 0; i < LH_CUDA_STAGES; i++) {
		if (dev->staged[i])
			cudaEventDestroy(dev->staged[i]);
		if (dev->stage[i])
			cudaFreeHost(dev->stage[i]);
	}
	cudaFree(dev->gemm_work);
	cudaFree(dev->scratch);
	cudaFree(dev->packed);
	if (dev->stream)
		cudaStreamDestroy(dev->stream);
	free(dev);
}

const char *lh_cuda_describe(struct lh_dev *dev)
{
	char attention[64] = "";

	if (dev->plans)
		lh_sdpa_plans_describe(dev->plans, attention, sizeof(attention));
	snprintf(dev->text, sizeof(dev->text), "%s%s%s", dev->opened,
		 *attention ? ", " : "", attention);
	return dev->text;
}

void lh_cuda_set_deterministic(struct lh_dev *dev)
{
	dev->deterministic = true;
}

void lh_cuda_cache(struct lh_dev *dev, const char *dir)
{
	if (!dev->deterministic)
		lh_cuda_gemms_cache(dev, dir, dev->gpu);
	if (dev->plans)
		lh_sdpa_plans_cache(dev->plans, dir, dev->gpu);
}

void lh_cuda_rehearse(struct lh_dev *dev, bool on)
{
	dev->rehearsing = on;
}

int64_t lh_cuda_preparations(struct lh_dev *dev)
{
	return dev->preparations + (dev->plans ? lh_sdpa_plans_count(dev->plans) : 0);
}

/* ---- memory ---------------------------------------------------------------- */

int64_t lh_cuda_free_bytes(struct lh_dev *dev)
{
	size_t left = 0, all = 0;

	lh_cuda_check(dev, "free memory", cudaMemGetInfo(&left, &all));
	return (int64_t)left;
}

int lh_cuda_alloc(struct lh_dev *dev, void **p, size_t bytes, struct lh_err *err)
{
	size_t left = 0, all = 0;
	cudaError_t rc = cudaMalloc(p, bytes ? bytes : 1);

	dev->preparations++;
	if (rc == cudaSuccess)
		return 0;
	cudaGetLastError();
	*p = NULL;
	if (rc != cudaErrorMemoryAllocation)
		return lh_err_set(err, LH_EWORKER, "'cudaMalloc': %s",
				  cudaGetErrorString(rc));
	cudaMemGetInfo(&left, &all);
	lh_err_set(err, LH_ETOOBIG, "%zu MiB do not fit the GPU: %zu of %zu MiB are free",
		   bytes >> 20, left >> 20, all >> 20);
	return lh_err_hint(err, "a smaller model, seq_len or micro_sequences");
}

void lh_cuda_free(struct lh_dev *dev, void *p)
{
	lh_cuda_check(dev, "free", cudaFree(p));
}

void *lh_cuda_host_alloc(struct lh_dev *dev, size_t bytes)
{
	void *p = NULL;

	(void)dev;
	if (cudaHostAlloc(&p, bytes, cudaHostAllocDefault) == cudaSuccess)
		return p;
	cudaGetLastError();
	return NULL;
}

void lh_cuda_host_free(struct lh_dev *dev, void *p)
{
	lh_cuda_check(dev, "free", cudaFreeHost(p));
}

void lh_cuda_put(struct lh_dev *dev, void *dst, const void *host, size_t bytes)
{
	int i = dev->next_stage;

	if (bytes > LH_CUDA_STAGE_BYTES) {
		lh_cuda_check(dev, "put", cudaMemcpyAsync(dst, host, bytes,
						  cudaMemcpyHostToDevice, dev->stream));
		lh_cuda_check(dev, "put", cudaStreamSynchronize(dev->stream));
		return;
	}
	dev->next_stage = (i + 1) % LH_CUDA_STAGES;
	lh_cuda_check(dev, "put", cudaEventSynchronize(dev->staged[i]));
	memcpy(dev->stage[i], host, bytes);
	lh_cuda_check(dev, "put", cudaMemcpyAsync(dst, dev->stage[i], bytes,
					  cudaMemcpyHostToDevice, dev->stream));
	lh_cuda_check(dev, "put", cudaEventRecord(dev->staged[i], dev->stream));
}

int lh_cuda_sync(struct lh_dev *dev, struct lh_err *err)
{
	lh_cuda_check(dev, "an earlier op", cudaStreamSynchronize(dev->stream));
	if (dev->failure.code && err)
		*err = dev->failure;
	return dev->failure.code;
}

int lh_cuda_fetch(struct lh_dev *dev, void *host, const void *src, size_t bytes,
		  struct lh_err *err)
{
	lh_cuda_check(dev, "fetch", cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost,
					    dev->stream));
	return lh_cuda_sync(dev, err);
}

void lh_cuda_zero(struct lh_dev *dev, void *p, size_t bytes)
{
	lh_cuda_check(dev, "zero", cudaMemsetAsync(p, 0, bytes, dev->stream));
}

/* Reads 4 n bytes, writes sizeof(T) n. */
template <typename T, int W>
__global__ void cast_kernel(T *dst, const float *__restrict__ src, int64_t n)
{
	int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
	float x[W];

	if (i >= n)
		return;
	load_table(x, src + i);
	store<T, W>(dst + i, x);
}

template <typename T>
void lh_cuda_cast(struct lh_dev *dev, lh_act *dst, const float *src, int64_t n)
{
	constexpr int W = VEC<T>;
	T *to = (T *)dst;

	if (!n)
		return;
	if (n % W == 0 && lh_aligned<T>(to, 0) && (uintptr_t)src % 16 == 0)
		cast_kernel<T, W><<<(unsigned)lh_ceil(n / W, 256), 256, 0, dev->stream>>>(
			to, src, n);
	else
		cast_kernel<T, 1><<<(unsigned)lh_ceil(n, 256), 256, 0, dev->stream>>>(
			to, src, n);
	lh_cuda_launched(dev, "cast");
}

template void lh_cuda_cast<bf16>(struct lh_dev *, lh_act *, const float *, int64_t);
template void lh_cuda_cast<float>(struct lh_dev *, lh_act *, const float *, int64_t);
