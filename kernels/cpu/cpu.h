/* cpu.h: the entries of the CPU backend, in the order of ops.h.
 *
 * The reference: plain C, OpenBLAS for products, OpenMP for loops, float32
 * everywhere. Loops that sum are either inside one work item or marked
 * `omp simd reduction`, so a result depends on the build and the number of
 * threads (through OpenBLAS) but never on timing. Contracts: lighthouse/ops.h.
 */
#ifndef LIGHTHOUSE_CPU_H
#define LIGHTHOUSE_CPU_H

#include "lighthouse/ops.h"

struct lh_dev {
	int threads;
	char text[160];
};

/* Place of row r of B*T in its document. */
static inline int64_t lh_cpu_place(const int32_t *start, int64_t r, int64_t T)
{
	return r % T - (start ? start[r] : 0);
}

void lh_cpu_linear(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
		   const lh_act *x, const lh_act *w, const lh_act *add);
void lh_cpu_linear_dx(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
		      const lh_act *dy, const lh_act *w);
void lh_cpu_linear_dw(struct lh_dev *dev, const struct lh_linear *s, float *dw,
		      const lh_act *dy, const lh_act *x);
void lh_cpu_rmsnorm(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y, float *rstd,
		    const lh_act *x, const lh_act *w, float eps);
void lh_cpu_rmsnorm_bwd(struct lh_dev *dev, int64_t R, int64_t C, lh_act *dx, float *dw,
			const lh_act *dy, const lh_act *x, const lh_act *w,
			const float *rstd);
void lh_cpu_rope(struct lh_dev *dev, int B, int64_t T, int heads, int D, lh_act *x,
		 int64_t row, const struct lh_rope *rope, const int32_t *start,
		 bool inverse);
void lh_cpu_bias(struct lh_dev *dev, int64_t R, int64_t N, lh_act *x, const lh_act *b);
void lh_cpu_bias_bwd(struct lh_dev *dev, int64_t R, int64_t N, float *db,
		     const lh_act *dy);
void lh_cpu_qk_norm(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *x,
		    int64_t row, const lh_act *w, float eps);
void lh_cpu_qk_norm_bwd(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *dx,
			float *dw, const lh_act *x, int64_t row, const lh_act *w,
			float eps);
void lh_cpu_swiglu(struct lh_dev *dev, int64_t R, int64_t F, lh_act *y,
		   const lh_act *gu);
void lh_cpu_swiglu_bwd(struct lh_dev *dev, int64_t R, int64_t F, lh_act *dgu,
		       const lh_act *dy, const lh_act *gu);
void lh_cpu_embed(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y,
		  const int32_t *tokens, const lh_act *w);
void lh_cpu_embed_bwd(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *dw,
		      const lh_act *dy, const int32_t *tokens);
void lh_cpu_xent(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *loss,
		 float *row_loss, lh_act *dx, float *dw, const lh_act *x,
		 const lh_act *w, const int32_t *targets, float scale, void *scratch,
		 size_t scratch_bytes);
void lh_cpu_copy_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		      int64_t to_row, const lh_act *from, int64_t from_row);
void lh_cpu_sum_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		     int64_t to_row, const lh_act *const *from, int64_t from_row,
		     int count);
void lh_cpu_sdpa(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *o, float *lse,
		 const lh_act *q, const lh_act *k, const lh_act *v);
void lh_cpu_sdpa_bwd(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *dq,
		     lh_act *dk, lh_act *dv, const lh_act *dout, const lh_act *q,
		     const lh_act *k, const lh_act *v, const lh_act *o,
		     const float *lse);
void lh_cpu_lighthouse_score(struct lh_dev *dev, const struct lh_lighthouse *g,
			     const struct lh_heads *h, float *score_q, float *score_k,
			     const lh_act *q, const lh_act *k, const lh_act *v,
			     const struct lh_rope *rope, void *scratch);
void lh_cpu_lighthouse_select(struct lh_dev *dev, const struct lh_lighthouse *g,
			      const struct lh_heads *h, int32_t *index,
			      const float *score_q, const float *score_k);
void lh_cpu_lighthouse_map(struct lh_dev *dev, const struct lh_lighthouse *g,
			   int64_t BH, int32_t *map, const int32_t *index);
void lh_cpu_lighthouse_gather(struct lh_dev *dev, const struct lh_lighthouse *g,
			      const struct lh_heads *h, lh_act *qs, lh_act *ks,
			      lh_act *vs, const lh_act *q, const lh_act *k,
			      const lh_act *v, const struct lh_rope *rope,
			      const int32_t *index, const void *scored);
void lh_cpu_lighthouse_gather_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				  const struct lh_heads *h, lh_act *dq, lh_act *dk,
				  lh_act *dv, const lh_act *dqs, const lh_act *dks,
				  const lh_act *dvs, const struct lh_rope *rope,
				  const int32_t *map);
void lh_cpu_lighthouse_scatter(struct lh_dev *dev, const struct lh_lighthouse *g,
			       const struct lh_heads *h, lh_act *o, const lh_act *os,
			       const int32_t *map);
void lh_cpu_lighthouse_scatter_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				   const struct lh_heads *h, lh_act *dos,
				   const lh_act *dout, const int32_t *index);
void lh_cpu_lighthouse_halo(struct lh_dev *dev, const struct lh_lighthouse *g,
			    const struct lh_heads *h, lh_act *halo, const lh_act *os,
			    const int32_t *map);
void lh_cpu_lighthouse_halo_add(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *o, const lh_act *halo);
void lh_cpu_lighthouse_halo_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, float *dhalo,
				const lh_act *dout);
void lh_cpu_lighthouse_halo_put(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *dos,
				const float *dhalo, const int32_t *map);
void lh_cpu_norm(struct lh_dev *dev, float *out, const float *x, int64_t n);
void lh_cpu_adamw(struct lh_dev *dev, const struct lh_adamw *s, int64_t n, float *param,
		  lh_act *copy, float *m, float *v, const float *grad,
		  const float *grad_norm);

#endif
