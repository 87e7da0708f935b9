/* dev.c: the CPU as a device, and the table of its ops.
 *
 * Memory is the heap, transfers are memcpy, and everything is finished when a
 * call returns. The number of threads is OpenMP's, which OpenBLAS follows. */
#include "cpu.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lighthouse/comm.h"

static int dev_open(struct lh_dev **out, int threads, struct lh_err *err)
{
	struct lh_dev *dev = lh_calloc(1, sizeof(*dev));

	(void)err;
	dev->threads = threads > 0 ? threads : omp_get_num_procs();
	omp_set_num_threads(dev->threads);
	/* One pool, OpenMP's: the library was built for it. Its configuration ends in
	 * the processor it has chosen kernels for. */
	snprintf(dev->text, sizeof(dev->text), "cpu, %d threads, %.110s", dev->threads,
		 openblas_get_config());
	*out = dev;
	return 0;
}

static void dev_close(struct lh_dev *dev)
{
	free(dev);
}

static const char *dev_describe(struct lh_dev *dev)
{
	return dev->text;
}

/* Ranks share it. */
static void dev_choose(int number, int count)
{
	(void)number, (void)count;
}

static int dev_probe(int number, struct lh_device_info *info, struct lh_err *err)
{
	(void)number, (void)err;
	snprintf(info->name, sizeof(info->name), "%d CPUs", omp_get_num_procs());
	info->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
	info->uuid[0] = '\0'; /* the kernel shares them out */
	info->count = 1;
	return 0;
}

/* It always is. */
static void dev_set_deterministic(struct lh_dev *dev)
{
	(void)dev;
}

static void dev_cache(struct lh_dev *dev, const char *dir)
{
	(void)dev, (void)dir;
}

static int64_t dev_free_bytes(struct lh_dev *dev)
{
	(void)dev;
	return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

static int dev_alloc(struct lh_dev *dev, void **p, size_t bytes, struct lh_err *err)
{
	size_t whole = (bytes + 255) / 256 * 256;

	(void)dev;
	*p = aligned_alloc(256, whole ? whole : 256);
	if (*p)
		return 0;
	lh_err_set(err, LH_ETOOBIG, "%zu bytes of memory are not to be had", bytes);
	return lh_err_hint(err, "a smaller model, seq_len or micro_sequences");
}

static void dev_free(struct lh_dev *dev, void *p)
{
	(void)dev;
	free(p);
}

static void *dev_host_alloc(struct lh_dev *dev, size_t bytes)
{
	void *p = malloc(bytes);

	(void)dev;
	/* Its pages now, and not while a training step waits for its first use. Zeros
	 * would be made a calloc, which takes none. */
	if (p)
		memset(p, 1, bytes);
	return p;
}

static void dev_put(struct lh_dev *dev, void *dst, const void *host, size_t bytes)
{
	(void)dev;
	memcpy(dst, host, bytes);
}

static int dev_fetch(struct lh_dev *dev, void *host, const void *src, size_t bytes,
		     struct lh_err *err)
{
	(void)dev, (void)err;
	memcpy(host, src, bytes);
	return 0;
}

static int dev_sync(struct lh_dev *dev, struct lh_err *err)
{
	(void)dev, (void)err;
	return 0;
}

static void dev_zero(struct lh_dev *dev, void *p, size_t bytes)
{
	(void)dev;
	memset(p, 0, bytes);
}

static void dev_cast(struct lh_dev *dev, lh_act *dst, const float *src, int64_t n)
{
	(void)dev;
	memcpy(dst, src, (size_t)n * sizeof(float));
}

const struct lh_ops lh_ops_cpu = {
	.name = "cpu",
	.sizes = &lh_sizes_cpu,
	.comm = &lh_comm_mpi,
	.choose = dev_choose,
	.probe = dev_probe,
	.open = dev_open,
	.close = dev_close,
	.describe = dev_describe,
	.set_deterministic = dev_set_deterministic,
	.cache = dev_cache,
	.free_bytes = dev_free_bytes,
	.alloc = dev_alloc,
	.free = dev_free,
	.host_alloc = dev_host_alloc,
	.host_free = dev_free,
	.put = dev_put,
	.fetch = dev_fetch,
	.sync = dev_sync,
	.zero = dev_zero,
	.cast = dev_cast,
	.linear = lh_cpu_linear,
	.linear_dx = lh_cpu_linear_dx,
	.linear_dw = lh_cpu_linear_dw,
	.rmsnorm = lh_cpu_rmsnorm,
	.rmsnorm_bwd = lh_cpu_rmsnorm_bwd,
	.rope = lh_cpu_rope,
	.bias = lh_cpu_bias,
	.bias_bwd = lh_cpu_bias_bwd,
	.qk_norm = lh_cpu_qk_norm,
	.qk_norm_bwd = lh_cpu_qk_norm_bwd,
	.swiglu = lh_cpu_swiglu,
	.swiglu_bwd = lh_cpu_swiglu_bwd,
	.embed = lh_cpu_embed,
	.embed_bwd = lh_cpu_embed_bwd,
	.xent = lh_cpu_xent,
	.copy_rows = lh_cpu_copy_rows,
	.sum_rows = lh_cpu_sum_rows,
	.sdpa = lh_cpu_sdpa,
	.sdpa_bwd = lh_cpu_sdpa_bwd,
	.lighthouse_score = lh_cpu_lighthouse_score,
	.lighthouse_select = lh_cpu_lighthouse_select,
	.lighthouse_map = lh_cpu_lighthouse_map,
	.lighthouse_gather = lh_cpu_lighthouse_gather,
	.lighthouse_gather_bwd = lh_cpu_lighthouse_gather_bwd,
	.lighthouse_scatter = lh_cpu_lighthouse_scatter,
	.lighthouse_scatter_bwd = lh_cpu_lighthouse_scatter_bwd,
	.lighthouse_halo = lh_cpu_lighthouse_halo,
	.lighthouse_halo_add = lh_cpu_lighthouse_halo_add,
	.lighthouse_halo_bwd = lh_cpu_lighthouse_halo_bwd,
	.lighthouse_halo_put = lh_cpu_lighthouse_halo_put,
	.norm = lh_cpu_norm,
	.adamw = lh_cpu_adamw,
};
