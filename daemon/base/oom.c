/* oom.c: see oom.h. */
#include "base/oom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

enum { FILE_MAX_BYTES = 1 << 16 };

/* ROOT/PATH/NAME, or ROOT/NAME: in a container PATH may be the host's, which is
 * not to be seen from inside. NULL if neither is there. */
static char *pick(const char *root, const char *path, const char *name)
{
	char *file = lh_asprintf("%s%s/%s", root, path, name);

	if (!lh_fs_exists(file)) {
		free(file);
		file = lh_asprintf("%s/%s", root, name);
	}
	if (lh_fs_exists(file))
		return file;
	free(file);
	return NULL;
}

char *lh_oom_find_in(const char *self_cgroup, const char *root)
{
	char *text, *line, *save, *found = NULL, *v1 = lh_asprintf("%s/memory", root);
	size_t bytes;

	if (lh_fs_read(self_cgroup, FILE_MAX_BYTES, &text, &bytes, NULL)) {
		free(v1);
		return NULL;
	}
	/* "0::/PATH" is v2's line, "7:memory:/PATH" v1's. */
	for (line = strtok_r(text, "\n", &save); line && !found;
	     line = strtok_r(NULL, "\n", &save)) {
		char *memory = strstr(line, ":memory:");

		if (!strncmp(line, "0::", 3))
			found = pick(root, line + 3, "memory.events");
		else if (memory)
			found = pick(v1, memory + strlen(":memory:"), "memory.oom_control");
	}
	free(text);
	free(v1);
	return found;
}

char *lh_oom_find(void)
{
	return lh_oom_find_in("/proc/self/cgroup", "/sys/fs/cgroup");
}

int64_t lh_oom_kills(const char *file)
{
	char *text, *line, *save;
	int64_t kills = -1;
	long long n;
	size_t bytes;

	if (!file || lh_fs_read(file, FILE_MAX_BYTES, &text, &bytes, NULL))
		return -1;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (sscanf(line, "oom_kill %lld", &n) == 1)
			kills = n;
	free(text);
	return kills;
}
