/* safetensors.c: see safetensors.h. */
#include "data/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/buf.h"
#include "base/failpoint.h"
#include "base/fs.h"
#include "base/io.h"

/* Parsed it takes some 40 times as much. A file of 1,000 tensors has 0.1 MB. */
#define HEADER_MAX_BYTES (16 << 20)
enum { HELD_BYTES = 1 << 16, BEHIND_BYTES = 8 << 20, NEIGHBOURS_BYTES = 2 << 20 };

static const struct {
	const char *name;
	int bytes;
} types[] = {
	[LH_TENSOR_F32] = { "F32", 4 },   [LH_TENSOR_BF16] = { "BF16", 2 },
	[LH_TENSOR_F16] = { "F16", 2 },   [LH_TENSOR_I32] = { "I32", 4 },
	[LH_TENSOR_I64] = { "I64", 8 },   [LH_TENSOR_U8] = { "U8", 1 },
};
_Static_assert(sizeof(types) / sizeof(types[0]) == LH_TENSOR_TYPES, "types");

int lh_tensor_width(enum lh_tensor_type type)
{
	return types[type].bytes;
}

static int type_of(const char *name)
{
	for (int t = 0; name && t < LH_TENSOR_TYPES; t++)
		if (!strcmp(types[t].name, name))
			return t;
	return -1;
}

/* -1 for what is no integer. */
static int64_t offset_at(const json_t *span, size_t i)
{
	const json_t *v = json_array_get(span, i);

	return json_is_integer(v) ? json_integer_value(v) : -1;
}

/* One header entry; the sentence names the tensor. */
static int parse_tensor(struct lh_tensor *t, const char *name, json_t *entry,
			int64_t data_bytes, struct lh_err *err)
{
	json_t *shape = json_object_get(entry, "shape");
	json_t *span = json_object_get(entry, "data_offsets"), *dim;
	int type = type_of(json_string_value(json_object_get(entry, "dtype")));
	int64_t from, to;
	size_t i;

	if (type < 0)
		return lh_err_set(err, LH_ECORRUPT, "tensor '%s' has an unknown dtype", name);
	if (!json_is_array(shape) || json_array_size(shape) > LH_TENSOR_DIMS_MAX ||
	    json_array_size(span) != 2)
		return lh_err_set(err, LH_ECORRUPT,
				  "tensor '%s' lacks a shape or offsets", name);
	t->type = (enum lh_tensor_type)type;
	t->dims = (int)json_array_size(shape);
	t->count = 1;
	json_array_foreach (shape, i, dim) {
		t->shape[i] = json_is_integer(dim) ? json_integer_value(dim) : -1;
		if (t->shape[i] < 0 ||
		    __builtin_mul_overflow(t->count, t->shape[i], &t->count))
			return lh_err_set(err, LH_ECORRUPT,
					  "tensor '%s' has an impossible shape", name);
	}
	from = offset_at(span, 0);
	to = offset_at(span, 1);
	if (__builtin_mul_overflow(t->count, (int64_t)types[type].bytes, &t->bytes) ||
	    from < 0 || to < from || to > data_bytes || to - from != t->bytes)
		return lh_err_set(err, LH_ECORRUPT,
				  "tensor '%s' has offsets that do not match its shape "
				  "or the file's size", name);
	t->offset = from;
	t->name = lh_strdup(name);
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct lh_tensor *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int parse_header(struct lh_safetensors *st, json_t *header, const char *data,
			int64_t data_bytes, struct lh_err *err)
{
	const char *name;
	json_t *entry, *meta = json_object_get(header, "__metadata__");
	int64_t end = 0;

	st->metadata = json_is_object(meta) ? json_incref(meta) : json_object();
	st->tensors = lh_calloc(json_object_size(header), sizeof(*st->tensors));
	json_object_foreach (header, name, entry) {
		int rc;

		if (entry == meta)
			continue;
		rc = parse_tensor(&st->tensors[st->count], name, entry, data_bytes, err);
		if (rc)
			return rc;
		st->count++;
	}
	qsort(st->tensors, (size_t)st->count, sizeof(*st->tensors), by_offset);
	for (int i = 0; i < st->count; i++) {
		if (st->tensors[i].offset != end)
			return lh_err_set(err, LH_ECORRUPT,
					  "tensor '%s' overlaps another or leaves a gap",
					  st->tensors[i].name);
		end += st->tensors[i].bytes;
		st->tensors[i].data = data + st->tensors[i].offset;
	}
	if (end != data_bytes)
		return lh_err_set(err, LH_ECORRUPT,
				  "%" PRId64 " bytes of data, the header accounts for %" PRId64,
				  data_bytes, end);
	return 0;
}

static int map_file(struct lh_safetensors *st, const char *path, struct lh_err *err)
{
	/* A pipe of that name must not block. */
	int fd = lh_io->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0), rc = 0;
	struct stat s;

	if (fd < 0 && errno == ENOENT)
		return lh_err_set(err, LH_ENOTFOUND, "no such file");
	if (fd < 0 || fstat(fd, &s))
		rc = lh_err_set(err, LH_EIO, "cannot open: %s", strerror(errno));
	else if (s.st_size < 8)
		rc = lh_err_set(err, LH_ECORRUPT, "%lld bytes are too few for a header",
				(long long)s.st_size);
	if (!rc) {
		st->map_bytes = s.st_size;
		st->map = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (st->map == MAP_FAILED) {
			st->map = NULL;
			rc = lh_err_set(err, LH_EIO, "cannot map: %s", strerror(errno));
		}
	}
	if (fd >= 0)
		lh_io->close(fd);
	return rc;
}

int lh_safetensors_open(struct lh_safetensors *st, const char *path, struct lh_err *err)
{
	uint64_t header_bytes;
	json_error_t e;
	json_t *header;
	char *text;
	int rc;

	memset(st, 0, sizeof(*st));
	rc = map_file(st, path, err);
	if (rc)
		goto fail;
	memcpy(&header_bytes, st->map, 8);
	if (header_bytes > HEADER_MAX_BYTES ||
	    (int64_t)header_bytes > st->map_bytes - 8) {
		rc = lh_err_set(err, LH_ECORRUPT,
				"the header claims %" PRIu64 " bytes of a file of %" PRId64,
				header_bytes, st->map_bytes);
		goto fail;
	}
	text = (char *)st->map + 8;
	header = json_loadb(text, header_bytes, JSON_REJECT_DUPLICATES, &e);
	if (!json_is_object(header)) {
		json_decref(header);
		rc = lh_err_set(err, LH_ECORRUPT, "the header is not a JSON object");
		goto fail;
	}
	rc = parse_header(st, header, text + header_bytes,
			  st->map_bytes - 8 - (int64_t)header_bytes, err);
	json_decref(header);
	if (!rc)
		return 0;
fail:
	lh_safetensors_close(st);
	lh_err_prefix(err, "'%s'", path);
	return rc;
}

void lh_safetensors_close(struct lh_safetensors *st)
{
	for (int i = 0; i < st->count; i++)
		free(st->tensors[i].name);
	free(st->tensors);
	json_decref(st->metadata);
	if (st->map)
		munmap(st->map, (size_t)st->map_bytes);
	memset(st, 0, sizeof(*st));
}

const struct lh_tensor *lh_safetensors_find(const struct lh_safetensors *st,
					    const char *name)
{
	for (int i = 0; i < st->count; i++)
		if (!strcmp(st->tensors[i].name, name))
			return &st->tensors[i];
	return NULL;
}

void lh_safetensors_forget(const struct lh_safetensors *st, const void *data, int64_t bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), map = (uintptr_t)st->map;
	uintptr_t from = (uintptr_t)data, to = from + (uintptr_t)bytes;

	LH_ASSERT(from >= map);
	/* A look at a page brings its neighbours, those before it too. */
	from = from - map < NEIGHBOURS_BYTES ? map : (from - NEIGHBOURS_BYTES) & ~(page - 1);
	madvise((void *)from, to - from, MADV_DONTNEED);
}

const char *lh_safetensors_meta(const struct lh_safetensors *st, const char *key)
{
	return json_string_value(json_object_get(st->metadata, key));
}

struct lh_safetensors_writer {
	char *path;
	int fd;                 /* -1: not begun */
	struct lh_buf held;     /* small pieces, to be written together */
	json_t *header;
	XXH64_state_t *hash;
	int64_t declared_bytes; /* of data */
	int64_t appended_bytes;
	int64_t put_bytes;      /* of the file, those held too */
	int64_t begun_bytes;    /* of the file, that the disk was told to write */
};

struct lh_safetensors_writer *lh_safetensors_writer_new(void)
{
	struct lh_safetensors_writer *w = lh_calloc(1, sizeof(*w));

	w->fd = -1;
	w->header = json_object();
	w->hash = XXH64_createState();
	XXH64_reset(w->hash, 0);
	return w;
}

void lh_safetensors_declare(struct lh_safetensors_writer *w, const char *name,
			    enum lh_tensor_type type, int dims, const int64_t *shape)
{
	json_t *list = json_array();
	int64_t bytes = types[type].bytes;

	for (int i = 0; i < dims; i++) {
		json_array_append_new(list, json_integer(shape[i]));
		bytes *= shape[i];
	}
	json_object_set_new(w->header, name,
			    json_pack("{s:s, s:o, s:[I,I]}", "dtype", types[type].name,
				      "shape", list, "data_offsets",
				      (json_int_t)w->declared_bytes,
				      (json_int_t)(w->declared_bytes + bytes)));
	w->declared_bytes += bytes;
}

/* The disk begins with what is there, or all of it would wait for the sync at the end.
 * Nothing is safe by that, and an error of it is one of the sync. */
static void begin_to_write(struct lh_safetensors_writer *w)
{
	int64_t bytes = w->put_bytes - w->begun_bytes;

	if (bytes < BEHIND_BYTES)
		return;
	sync_file_range(w->fd, w->begun_bytes, bytes, SYNC_FILE_RANGE_WRITE);
	w->begun_bytes = w->put_bytes;
}

/* `bytes` that end where the file is to end now. */
static int write_out(struct lh_safetensors_writer *w, const void *data, size_t bytes,
		     struct lh_err *err)
{
	if (lh_fs_write_at(w->fd, data, bytes, w->put_bytes - (int64_t)bytes))
		return lh_err_set(err, LH_EIO, "cannot write '%s': %s", w->path,
				  strerror(errno));
	begin_to_write(w);
	return 0;
}

static int write_held(struct lh_safetensors_writer *w, struct lh_err *err)
{
	int rc = write_out(w, w->held.data, w->held.used_bytes, err);

	lh_buf_consume(&w->held, w->held.used_bytes);
	return rc;
}

static int put(struct lh_safetensors_writer *w, const void *data, size_t bytes,
	       struct lh_err *err)
{
	int rc;

	XXH64_update(w->hash, data, bytes);
	if (w->held.used_bytes + bytes > HELD_BYTES) {
		rc = write_held(w, err);
		if (rc)
			return rc;
	}
	w->put_bytes += (int64_t)bytes;
	if (bytes > HELD_BYTES)
		return write_out(w, data, bytes, err);
	lh_buf_append(&w->held, data, bytes);
	return 0;
}

int lh_safetensors_begin(struct lh_safetensors_writer *w, const char *path,
			 json_t *metadata, struct lh_err *err)
{
	char *text, *padded;
	uint64_t n;
	int rc;

	w->path = lh_strdup(path);
	w->fd = lh_io->open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (w->fd < 0)
		return lh_err_set(err, LH_EIO, "cannot create '%s': %s", path,
				  strerror(errno));
	if (metadata)
		json_object_set(w->header, "__metadata__", metadata);
	text = json_dumps(w->header, JSON_COMPACT);
	/* Spaces up to a multiple of 8 keep the tensors aligned. */
	n = (strlen(text) + 7) / 8 * 8;
	padded = lh_asprintf("%-*s", (int)n, text);
	rc = put(w, &n, 8, err);
	if (!rc)
		rc = put(w, padded, n, err);
	free(padded);
	free(text);
	return rc;
}

int lh_safetensors_append(struct lh_safetensors_writer *w, const void *data,
			  size_t bytes, struct lh_err *err)
{
	w->appended_bytes += (int64_t)bytes;
	LH_ASSERT(w->appended_bytes <= w->declared_bytes);
	if (LH_FAILS("tensors.write"))
		return lh_err_set(err, LH_EIO, "cannot write '%s': %s", w->path,
				  strerror(errno));
	return put(w, data, bytes, err);
}

int lh_safetensors_commit(struct lh_safetensors_writer *w, int64_t *bytes,
			  uint64_t *xxh64, struct lh_err *err)
{
	int rc = write_held(w, err);

	LH_ASSERT(w->appended_bytes == w->declared_bytes);
	if (!rc && (LH_FAILS("tensors.sync") ||
		    (!LH_PLANTED("no_fsync") && lh_io->fsync(w->fd))))
		rc = lh_err_set(err, LH_EIO, "cannot write '%s': %s", w->path,
				strerror(errno));
	*bytes = w->put_bytes;
	*xxh64 = XXH64_digest(w->hash);
	lh_safetensors_abort(w);
	return rc;
}

void lh_safetensors_abort(struct lh_safetensors_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		lh_io->close(w->fd);
	lh_buf_release(&w->held);
	json_decref(w->header);
	XXH64_freeState(w->hash);
	free(w->path);
	free(w);
}
