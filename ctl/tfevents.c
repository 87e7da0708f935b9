/* tfevents.c: see tfevents.h. */
#include "tfevents.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"

/* Fields, as number << 3 | type: 0 a varint, 1 eight bytes, 2 so many, 5 four bytes. */
enum {
	EVENT_WALL_TIME = 1 << 3 | 1,
	EVENT_STEP = 2 << 3,
	EVENT_FILE_VERSION = 3 << 3 | 2,
	EVENT_SUMMARY = 5 << 3 | 2,
	SUMMARY_VALUE = 1 << 3 | 2,
	VALUE_TAG = 1 << 3 | 2,
	VALUE_SIMPLE = 2 << 3 | 5,
};

struct ctl_tfevents {
	FILE *file;
	char *path, *unfinished;
	struct lh_buf event, value, summary; /* reused */
	uint32_t crcs[256];
};

/* ---- records --------------------------------------------------------------- */

static void make_crcs(uint32_t crcs[256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
		crcs[i] = c;
	}
}

/* CRC-32C, rotated and moved, as TFRecords have it. */
static uint32_t masked_crc(const struct ctl_tfevents *f, const void *data, size_t bytes)
{
	const unsigned char *p = data;
	uint32_t c = ~0u;

	while (bytes--)
		c = c >> 8 ^ f->crcs[(c ^ *p++) & 255];
	c = ~c;
	return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* The low bytes, least first, whatever this machine's order. */
static void put_little(unsigned char *out, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		out[i] = (unsigned char)(v >> 8 * i);
}

static void write_record(struct ctl_tfevents *f)
{
	unsigned char head[12], tail[4];

	put_little(head, f->event.used_bytes, 8);
	put_little(head + 8, masked_crc(f, head, 8), 4);
	put_little(tail, masked_crc(f, f->event.data, f->event.used_bytes), 4);
	fwrite(head, 1, sizeof(head), f->file);
	fwrite(f->event.data, 1, f->event.used_bytes, f->file);
	fwrite(tail, 1, sizeof(tail), f->file);
	f->event.used_bytes = 0;
}

/* ---- fields ---------------------------------------------------------------- */

static void put_varint(struct lh_buf *out, uint64_t v)
{
	do {
		unsigned char byte = (v & 127) | (v > 127 ? 128 : 0);

		lh_buf_append(out, &byte, 1);
		v >>= 7;
	} while (v);
}

static void put_bytes(struct lh_buf *out, int field, const void *data, size_t bytes)
{
	put_varint(out, (uint64_t)field);
	put_varint(out, bytes);
	lh_buf_append(out, data, bytes);
}

static void put_double(struct lh_buf *out, int field, double v)
{
	unsigned char bytes[8];
	uint64_t bits;

	memcpy(&bits, &v, 8);
	put_little(bytes, bits, 8);
	put_varint(out, (uint64_t)field);
	lh_buf_append(out, bytes, 8);
}

static void put_float(struct lh_buf *out, int field, float v)
{
	unsigned char bytes[4];
	uint32_t bits;

	memcpy(&bits, &v, 4);
	put_little(bytes, bits, 4);
	put_varint(out, (uint64_t)field);
	lh_buf_append(out, bytes, 4);
}

void ctl_tfevents_write(struct ctl_tfevents *f, int64_t time_ms, int64_t step,
			const struct ctl_scalar *scalars, int count)
{
	f->summary.used_bytes = 0;
	for (int i = 0; i < count; i++) {
		f->value.used_bytes = 0;
		put_bytes(&f->value, VALUE_TAG, scalars[i].tag, strlen(scalars[i].tag));
		put_float(&f->value, VALUE_SIMPLE, (float)scalars[i].value);
		put_bytes(&f->summary, SUMMARY_VALUE, f->value.data, f->value.used_bytes);
	}
	put_double(&f->event, EVENT_WALL_TIME, (double)time_ms / 1000);
	put_varint(&f->event, EVENT_STEP);
	put_varint(&f->event, (uint64_t)step);
	put_bytes(&f->event, EVENT_SUMMARY, f->summary.data, f->summary.used_bytes);
	write_record(f);
}

/* ---- the file -------------------------------------------------------------- */

static void free_file(struct ctl_tfevents *f)
{
	lh_buf_release(&f->event);
	lh_buf_release(&f->value);
	lh_buf_release(&f->summary);
	free(f->path);
	free(f->unfinished);
	free(f);
}

static int fail(struct lh_err *err, const char *path)
{
	return lh_err_set(err, LH_EIO, "cannot write '%s': %s", path, strerror(errno));
}

int ctl_tfevents_open(struct ctl_tfevents **out, const char *dir, int64_t time_ms,
		      bool replace, struct lh_err *err)
{
	static const char version[] = "brain.Event:2";
	struct ctl_tfevents *f = lh_calloc(1, sizeof(*f));
	int rc = lh_fs_mkdirs(dir, err);

	f->path = lh_asprintf("%s/events.out.tfevents.%010" PRId64 ".lighthouse", dir,
			      time_ms / 1000);
	/* TensorBoard reads whatever has tfevents in its name. */
	f->unfinished = lh_asprintf("%s/unfinished.%d.tmp", dir, (int)getpid());
	if (!rc && !replace && lh_fs_exists(f->path)) {
		rc = lh_err_set(err, LH_EINVAL, "'%s' is there already", f->path);
		lh_err_hint(err, "--force writes it anew");
	}
	if (!rc && !(f->file = fopen(f->unfinished, "wx")))
		rc = fail(err, f->unfinished);
	if (rc) {
		free_file(f);
		return rc;
	}
	make_crcs(f->crcs);
	put_double(&f->event, EVENT_WALL_TIME, (double)time_ms / 1000);
	put_bytes(&f->event, EVENT_FILE_VERSION, version, strlen(version));
	write_record(f);
	*out = f;
	return 0;
}

int ctl_tfevents_close(struct ctl_tfevents *f, struct lh_err *err)
{
	bool failed = ferror(f->file);
	int rc = 0;

	if (fclose(f->file) || failed || rename(f->unfinished, f->path)) {
		rc = fail(err, f->path);
		unlink(f->unfinished);
	}
	free_file(f);
	return rc;
}

void ctl_tfevents_discard(struct ctl_tfevents *f)
{
	if (!f)
		return;
	fclose(f->file);
	unlink(f->unfinished);
	free_file(f);
}
