/* fuzz_safetensors.c: tensor files (data/safetensors.h).
 *
 * Each input is read as a file, and once more as a header's text up to the first NUL
 * with the data behind it, so that a mutation need not get a length right. Tensors
 * that are accepted tile the data exactly, and are what the header says. */
#include "data/safetensors.h"
#include "fuzz.h"

static int element_bytes(enum lh_tensor_type type)
{
	static const int bytes[LH_TENSOR_TYPES] = {
		[LH_TENSOR_F32] = 4, [LH_TENSOR_BF16] = 2, [LH_TENSOR_F16] = 2,
		[LH_TENSOR_I32] = 4, [LH_TENSOR_I64] = 8,  [LH_TENSOR_U8] = 1,
	};

	return bytes[type];
}

static void check_tensor(const struct lh_safetensors *st, const struct lh_tensor *t)
{
	volatile const uint8_t *data = t->data;
	int64_t count = 1;

	LH_ASSERT(t->dims >= 0 && t->dims <= LH_TENSOR_DIMS_MAX);
	for (int i = 0; i < t->dims; i++)
		count *= t->shape[i];
	LH_ASSERT(count == t->count && t->bytes == count * element_bytes(t->type));
	for (int64_t i = 0; i < t->bytes; i++)
		(void)data[i];
	LH_ASSERT(lh_safetensors_find(st, t->name) == t);
}

/* A number that is none must not be taken for 0. */
static void check_entry(const json_t *header, const struct lh_tensor *t)
{
	json_t *span = json_object_get(json_object_get(header, t->name), "data_offsets");
	json_t *from = json_array_get(span, 0), *to = json_array_get(span, 1);

	LH_ASSERT(json_is_integer(from) && json_integer_value(from) == t->offset);
	LH_ASSERT(json_is_integer(to) && json_integer_value(to) == t->offset + t->bytes);
}

static json_t *header_of(const void *data)
{
	uint64_t bytes;

	memcpy(&bytes, data, 8);
	return json_loadb((const char *)data + 8, bytes, 0, NULL);
}

static void read_as_tensors(const void *data, size_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_safetensors st;
	char path[64];
	int fd = fuzz_file(data, bytes, path);
	int64_t at = 0;
	json_t *header;

	if (lh_safetensors_open(&st, path, &err)) {
		LH_ASSERT(err.code == LH_ECORRUPT && !st.map);
	} else {
		header = header_of(data);
		for (int i = 0; i < st.count; i++) {
			check_tensor(&st, &st.tensors[i]);
			check_entry(header, &st.tensors[i]);
			LH_ASSERT(st.tensors[i].offset == at);
			at += st.tensors[i].bytes;
		}
		lh_safetensors_meta(&st, "format");
		json_decref(header);
		lh_safetensors_close(&st);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const uint8_t *nul = bytes ? memchr(data, '\0', bytes) : NULL;
	uint64_t header = nul ? (uint64_t)(nul - data) : bytes, rest = nul ? bytes - header - 1 : 0;
	uint8_t *file = lh_alloc(8 + header + rest);

	read_as_tensors(data, bytes);
	memcpy(file, &header, 8);
	memcpy(file + 8, data, header);
	memcpy(file + 8 + header, data + bytes - rest, rest);
	read_as_tensors(file, 8 + header + rest);
	free(file);
	return 0;
}
