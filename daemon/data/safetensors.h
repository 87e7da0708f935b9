/* safetensors.h: the tensor files everybody loads: read strictly, written whole.
 *
 * Layout: u64 header length (little-endian), a JSON object of that length, then
 * the data. {"NAME": {"dtype", "shape", "data_offsets": [from, to]}, ...,
 * "__metadata__": {string: string}}. Reading maps the file and refuses what a
 * damaged or hostile file could hold: a header longer than the file or
 * than 16 MB, repeated keys, unknown dtypes, sizes that do not match shapes, overlaps,
 * gaps, offsets past the end.
 *
 * A reader may be used from any thread; a writer belongs to one.
 */
#ifndef LIGHTHOUSE_SAFETENSORS_H
#define LIGHTHOUSE_SAFETENSORS_H

#include <jansson.h>
#include <stdint.h>

#include "lighthouse/err.h"

#define LH_TENSOR_DIMS_MAX 8

enum lh_tensor_type { LH_TENSOR_F32, LH_TENSOR_BF16, LH_TENSOR_F16, LH_TENSOR_I32,
		      LH_TENSOR_I64, LH_TENSOR_U8, LH_TENSOR_TYPES };

/* Bytes of an element. */
int lh_tensor_width(enum lh_tensor_type type);

struct lh_tensor {
	char *name;
	enum lh_tensor_type type;
	int dims;
	int64_t shape[LH_TENSOR_DIMS_MAX];
	int64_t count;      /* elements */
	int64_t bytes;
	int64_t offset;     /* from the start of the data */
	const void *data;   /* mapped (reader only) */
};

struct lh_safetensors {
	struct lh_tensor *tensors; /* in file order */
	int count;
	json_t *metadata;   /* object of strings, never NULL */
	void *map;          /* private */
	int64_t map_bytes;
};

/* LH_ENOTFOUND, LH_EIO, or LH_ECORRUPT naming the file and what is wrong. */
int lh_safetensors_open(struct lh_safetensors *st, const char *path,
			struct lh_err *err);
void lh_safetensors_close(struct lh_safetensors *st); /* zeroed is allowed */

/* NULL when there is none. */
const struct lh_tensor *lh_safetensors_find(const struct lh_safetensors *st,
					    const char *name);
/* Gives back the memory of pages that were read, and of some before them: of the map, or
 * of a tensor. They are read again when they are looked at again. */
void lh_safetensors_forget(const struct lh_safetensors *st, const void *data,
			   int64_t bytes);
const char *lh_safetensors_meta(const struct lh_safetensors *st, const char *key);

/* Writing: declare every tensor, begin, then append their data in order.
 *
 *   lh_safetensors_writer_new(&w);
 *   lh_safetensors_declare(w, "x", LH_TENSOR_F32, 2, shape);   ...
 *   lh_safetensors_begin(w, path, metadata, err);
 *   lh_safetensors_append(w, data, bytes, err);                ...
 *   lh_safetensors_commit(w, &bytes, &xxh64, err);
 */
struct lh_safetensors_writer;
struct lh_safetensors_writer *lh_safetensors_writer_new(void);
void lh_safetensors_declare(struct lh_safetensors_writer *w, const char *name,
			    enum lh_tensor_type type, int dims, const int64_t *shape);
/* Creates PATH and writes the header. `metadata` may be NULL; borrowed. */
int lh_safetensors_begin(struct lh_safetensors_writer *w, const char *path,
			 json_t *metadata, struct lh_err *err);
int lh_safetensors_append(struct lh_safetensors_writer *w, const void *data,
			  size_t bytes, struct lh_err *err);
/* fsyncs and closes; whole file's size and xxh64 (seed 0). Frees the writer
 * either way. The caller makes it visible (renames its directory). */
int lh_safetensors_commit(struct lh_safetensors_writer *w, int64_t *bytes,
			  uint64_t *xxh64, struct lh_err *err);
void lh_safetensors_abort(struct lh_safetensors_writer *w); /* NULL is allowed */

#endif
