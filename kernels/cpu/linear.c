/* linear.c: y = x w^T and its two gradients, by OpenBLAS. */
#include "cpu.h"

#include <cblas.h>
#include <string.h>

void lh_cpu_linear(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
		   const lh_act *x, const lh_act *w, const lh_act *add)
{
	(void)dev;
	if (add && add != y)
		memcpy(y, add, (size_t)(s->rows * s->out) * sizeof(float));
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->rows, s->out, s->in, 1,
		    x, s->in, w, s->in, add ? 1 : 0, y, s->out);
}

void lh_cpu_linear_dx(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
		      const lh_act *dy, const lh_act *w)
{
	(void)dev;
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, s->rows, s->in, s->out,
		    1, dy, s->out, w, s->in, 0, dx, s->in);
}

void lh_cpu_linear_dw(struct lh_dev *dev, const struct lh_linear *s, float *dw,
		      const lh_act *dy, const lh_act *x)
{
	(void)dev;
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, s->out, s->in, s->rows, 1,
		    dy, s->out, x, s->in, 1, dw, s->in);
}
