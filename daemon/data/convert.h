/* convert.h: tensor elements from one type to another.
 *
 * float32, bf16 and fp16 only. Widening is exact, NaNs keep their payload; narrowing
 * rounds to nearest, ties to even, so that what was widened comes back bit for bit.
 * Pure; buffers may be unaligned and do not overlap.
 */
#ifndef LIGHTHOUSE_CONVERT_H
#define LIGHTHOUSE_CONVERT_H

#include "data/safetensors.h"

/* Whether it is one of the three. */
bool lh_convert_can(enum lh_tensor_type type);
/* to (n) of type `to_type` <- from (n). Gives how many
 * finite elements became infinite: their magnitude is too large for the type. */
int64_t lh_convert(void *to, enum lh_tensor_type to_type, const void *from,
		   enum lh_tensor_type from_type, int64_t n);

#endif
