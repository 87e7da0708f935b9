/* cache.c: see cache.h. */
#include "cache.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lighthouse/err.h"

enum { FILE_MAX_BYTES = 16 << 20 };

char *lh_cache_name(char *text)
{
	for (char *c = text; *c; c++)
		if (!(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') &&
		    !(*c >= '0' && *c <= '9') && *c != '.' && *c != '-')
			*c = '_';
	return text;
}

char *lh_cache_read(const char *dir, const char *name, size_t *bytes)
{
	char *path, *text;
	FILE *f;

	if (!dir)
		return NULL;
	path = lh_asprintf("%s/%s", dir, name);
	f = fopen(path, "rb");
	free(path);
	if (!f)
		return NULL;
	text = lh_alloc(FILE_MAX_BYTES + 1);
	*bytes = fread(text, 1, FILE_MAX_BYTES, f);
	text[*bytes] = '\0';
	fclose(f);
	return text;
}

void lh_cache_write(const char *dir, const char *name, const void *text, size_t bytes)
{
	char *path, *fresh;
	FILE *f;
	bool good;

	if (!dir || bytes > FILE_MAX_BYTES)
		return;
	path = lh_asprintf("%s/%s", dir, name);
	fresh = lh_asprintf("%s.%ld", path, (long)getpid());
	f = fopen(fresh, "wb");
	if (f) {
		good = fwrite(text, 1, bytes, f) == bytes;
		good = !fclose(f) && good;
		if (!good || rename(fresh, path))
			unlink(fresh);
	}
	free(fresh);
	free(path);
}
