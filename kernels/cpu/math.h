/* math.h: the exponential and the rotation that several ops share.
 *
 * lh_expf is written so that compilers vectorise the loop around it: no call,
 * no branch. exp(x) = 2^n exp(r), |r| <= ln 2 / 2, with a degree-6 Taylor
 * polynomial in Horner form: relative error under 2e-7. Below -87.3, where the
 * result would be denormal, it is 0; so exp(-inf) = 0. NaN stays NaN.
 */
#ifndef LIGHTHOUSE_CPU_MATH_H
#define LIGHTHOUSE_CPU_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float lh_expf(float x)
{
	float c = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
	float n = rintf(c * 1.44269504088896341f);
	float r = fmaf(n, -0.693359375f, c); /* ln 2, high and low part */
	float p, two_n;
	uint32_t bits = ((uint32_t)(int32_t)n + 127u) << 23;

	r = fmaf(n, 2.12194440054690583e-4f, r);
	p = fmaf(r, 1.0f / 720, 1.0f / 120);
	p = fmaf(r, p, 1.0f / 24);
	p = fmaf(r, p, 1.0f / 6);
	p = fmaf(r, p, 0.5f);
	p = fmaf(r, p, 1.0f);
	p = fmaf(r, p, 1.0f);
	memcpy(&two_n, &bits, sizeof(two_n));
	return x < -87.3f ? 0.0f : p * two_n;
}

/* out (D) <- x (D) rotated by the angles of one position, half-split order;
 * sign -1 rotates back. cos, sin (D/2). In place is allowed. */
static inline void lh_rotate(float *out, const float *x, int D, const float *cos,
			     const float *sin, float sign)
{
	int half = D / 2;

	for (int d = 0; d < half; d++) {
		float a = x[d], b = x[d + half], s = sign * sin[d];

		out[d] = a * cos[d] - b * s;
		out[d + half] = b * cos[d] + a * s;
	}
}

#endif
