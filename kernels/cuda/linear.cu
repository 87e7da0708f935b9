/* linear.cu: y = x w^T and its two gradients, as GEMMs. */
#include "cuda.h"

template <typename T>
void lh_cuda_linear(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
		    const lh_act *x, const lh_act *w, const lh_act *add)
{
	struct lh_gemm g = { s->rows, s->out, s->in, s->in, s->in, s->out, false, true,
			     lh_cuda_type<T>, lh_cuda_type<T> };

	lh_cuda_gemm(dev, &g, y, x, w, add);
}

template <typename T>
void lh_cuda_linear_dx(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
		       const lh_act *dy, const lh_act *w)
{
	struct lh_gemm g = { s->rows, s->in, s->out, s->out, s->in, s->in, false, false,
			     lh_cuda_type<T>, lh_cuda_type<T> };

	lh_cuda_gemm(dev, &g, dx, dy, w, NULL);
}

template <typename T>
void lh_cuda_linear_dw(struct lh_dev *dev, const struct lh_linear *s, float *dw,
		       const lh_act *dy, const lh_act *x)
{
	struct lh_gemm g = { s->out, s->in, s->rows, s->out, s->in, s->in, true, false,
			     lh_cuda_type<T>, CUDA_R_32F };

	lh_cuda_gemm(dev, &g, dw, dy, x, dw);
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_linear<T>(struct lh_dev *, const struct lh_linear *,    \
					lh_act *, const lh_act *, const lh_act *,     \
					const lh_act *);                              \
	template void lh_cuda_linear_dx<T>(struct lh_dev *, const struct lh_linear *, \
					   lh_act *, const lh_act *,                  \
					   const lh_act *);                           \
	template void lh_cuda_linear_dw<T>(struct lh_dev *, const struct lh_linear *, \
					   float *, const lh_act *, const lh_act *);
INSTANCE(bf16)
INSTANCE(float)
