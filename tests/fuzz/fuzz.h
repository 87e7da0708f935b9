/* fuzz.h: what the targets share. A target is a file fuzz_NAME.c with one function;
 * it aborts (LH_ASSERT) when an input shows a defect, and leaves nothing behind:
 * every input meets the same state. With libFuzzer it is a fuzzer; with replay.c it
 * runs the inputs of corpus/NAME/, which `make test` does. */
#ifndef LIGHTHOUSE_FUZZ_H
#define LIGHTHOUSE_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "lighthouse/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A piece of an input. */
struct fuzz_part {
	const char *text; /* not NUL-terminated */
	size_t bytes;
};

/* The input up to `separator`, and behind it what is left; false at the end. */
static inline bool fuzz_next(struct fuzz_part *rest, char separator, struct fuzz_part *part)
{
	const char *end;

	if (!rest->text)
		return false;
	end = memchr(rest->text, separator, rest->bytes);
	*part = *rest;
	if (end) {
		part->bytes = (size_t)(end - rest->text);
		rest->text = end + 1;
		rest->bytes -= part->bytes + 1;
	} else {
		rest->text = NULL;
	}
	return true;
}

static inline char *fuzz_string(struct fuzz_part part)
{
	char *s = lh_alloc(part.bytes + 1);

	memcpy(s, part.text, part.bytes);
	s[part.bytes] = '\0';
	return s;
}

/* A file in memory, and the path it can be opened by. Close the fd. */
static inline int fuzz_file(const void *data, size_t bytes, char path[64])
{
	int fd = memfd_create("input", MFD_CLOEXEC);

	LH_ASSERT(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

/* ---- a directory ----------------------------------------------------------- */

/* Of this process, made at the first call under TMPDIR and removed at exit. */
static char fuzz_dir_path[200];

static inline void fuzz_dir_remove(void)
{
	lh_fs_remove_tree(fuzz_dir_path, NULL);
}

static inline const char *fuzz_dir(void)
{
	const char *base = getenv("TMPDIR");

	if (*fuzz_dir_path)
		return fuzz_dir_path;
	snprintf(fuzz_dir_path, sizeof(fuzz_dir_path), "%s/lh-fuzz-XXXXXX",
		 base ? base : "/tmp");
	LH_ASSERT(mkdtemp(fuzz_dir_path));
	atexit(fuzz_dir_remove);
	return fuzz_dir_path;
}

static inline void fuzz_write(const char *dir, const char *name, const void *data, size_t bytes)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "we");

	LH_ASSERT(f && fwrite(data, 1, bytes, f) == bytes);
	LH_ASSERT(!fclose(f));
	free(path);
}

#endif
