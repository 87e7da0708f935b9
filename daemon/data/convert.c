/* convert.c: see convert.h. By bits alone: what a CPU's own conversion does to NaNs
 * and to the smallest numbers depends on the CPU and its modes. */
#include "data/convert.h"

#include <string.h>

#define F32_EXPONENT UINT32_C(0x7f800000)

static bool is_finite(uint32_t f32)
{
	return (f32 & F32_EXPONENT) != F32_EXPONENT;
}

static bool is_nan(uint32_t f32)
{
	return !is_finite(f32) && f32 & 0x7fffff;
}

/* bf16 is the upper half of a float32. */
static uint32_t widen_bf16(uint16_t x)
{
	return (uint32_t)x << 16;
}

static uint16_t narrow_bf16(uint32_t x)
{
	if (is_nan(x)) /* must not become an infinity */
		return (uint16_t)(x >> 16 | ((x >> 16 & 0x7f) ? 0 : 0x40));
	return (uint16_t)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

static uint32_t widen_f16(uint16_t x)
{
	uint32_t sign = (uint32_t)(x & 0x8000) << 16, mantissa = x & 0x3ff;
	uint32_t exponent = x >> 10 & 0x1f;

	if (exponent == 0x1f)
		return sign | F32_EXPONENT | mantissa << 13;
	if (exponent)
		return sign | (exponent + 112) << 23 | mantissa << 13;
	if (!mantissa)
		return sign;
	for (exponent = 113; !(mantissa & 0x400); exponent--)
		mantissa <<= 1;
	return sign | exponent << 23 | (mantissa & 0x3ff) << 13;
}

/* The upper bits of a mantissa, `drop` fewer, to nearest even. */
static uint32_t round_off(uint32_t mantissa, unsigned drop)
{
	uint32_t half = (UINT32_C(1) << (drop - 1)) - 1;

	return (mantissa + half + (mantissa >> drop & 1)) >> drop;
}

static uint16_t narrow_f16(uint32_t x)
{
	uint16_t sign = (uint16_t)(x >> 16 & 0x8000);
	uint32_t mantissa = x & 0x7fffff;
	int exponent = (int)(x >> 23 & 0xff) - 112;

	if (is_nan(x))
		return (uint16_t)(sign | 0x7c00 | mantissa >> 13 | (mantissa >> 13 ? 0 : 0x200));
	if (exponent >= 31)
		return sign | 0x7c00;
	if (exponent < -10) /* below half of the smallest */
		return sign;
	if (exponent < 1) /* one without a leading 1 */
		return (uint16_t)(sign | round_off(mantissa | 0x800000,
						   (unsigned)(14 - exponent)));
	/* Rounding up may carry into the exponent, as it should. */
	return (uint16_t)(sign | round_off((uint32_t)exponent << 23 | mantissa, 13));
}

bool lh_convert_can(enum lh_tensor_type type)
{
	return type == LH_TENSOR_F32 || type == LH_TENSOR_BF16 || type == LH_TENSOR_F16;
}

static void widen(void *to, const void *from, uint32_t (*one)(uint16_t), int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint32_t wide;
		uint16_t x;

		memcpy(&x, (const char *)from + i * 2, 2);
		wide = one(x);
		memcpy((char *)to + i * 4, &wide, 4);
	}
}

/* `infinity` is the narrow type's. */
static int64_t narrow(void *to, const void *from, uint16_t (*one)(uint32_t),
		      uint16_t infinity, int64_t n)
{
	int64_t lost = 0;

	for (int64_t i = 0; i < n; i++) {
		uint32_t x;
		uint16_t less;

		memcpy(&x, (const char *)from + i * 4, 4);
		less = one(x);
		memcpy((char *)to + i * 2, &less, 2);
		lost += is_finite(x) && (less & 0x7fff) == infinity;
	}
	return lost;
}

/* By way of float32, which holds either. */
static int64_t convert_halves(void *to, enum lh_tensor_type to_type, const void *from,
			      enum lh_tensor_type from_type, int64_t n)
{
	enum { PIECE = 1024 };
	float wide[PIECE];
	int64_t lost = 0;

	for (int64_t i = 0; i < n; i += PIECE) {
		int64_t piece = n - i < PIECE ? n - i : PIECE;

		lh_convert(wide, LH_TENSOR_F32, (const char *)from + 2 * i, from_type, piece);
		lost += lh_convert((char *)to + 2 * i, to_type, wide, LH_TENSOR_F32, piece);
	}
	return lost;
}

int64_t lh_convert(void *to, enum lh_tensor_type to_type, const void *from,
		   enum lh_tensor_type from_type, int64_t n)
{
	LH_ASSERT(lh_convert_can(to_type) && lh_convert_can(from_type));
	if (to_type == from_type)
		memcpy(to, from, (size_t)(n * lh_tensor_width(to_type)));
	else if (to_type != LH_TENSOR_F32 && from_type != LH_TENSOR_F32)
		return convert_halves(to, to_type, from, from_type, n);
	else if (to_type == LH_TENSOR_BF16)
		return narrow(to, from, narrow_bf16, 0x7f80, n);
	else if (to_type == LH_TENSOR_F16)
		return narrow(to, from, narrow_f16, 0x7c00, n);
	else if (from_type == LH_TENSOR_BF16)
		widen(to, from, widen_bf16, n);
	else
		widen(to, from, widen_f16, n);
	return 0;
}
