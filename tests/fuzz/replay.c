/* replay.c: runs a target on files instead of under libFuzzer.
 *
 *   fuzz_NAME FILE|DIRECTORY...
 *
 * Each input is named before it runs, so that one that crashes or hangs is known;
 * one that takes longer than LIMIT_S hangs. Ends with how many there were. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

enum { LIMIT_S = 60, FILE_MAX_BYTES = 64 << 20 };

static int count;

static void run_file(const char *path)
{
	struct lh_err err = LH_ERR_INIT;
	size_t bytes;
	char *data;

	fprintf(stderr, "%s\n", path);
	if (lh_fs_read(path, FILE_MAX_BYTES, &data, &bytes, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		exit(2);
	}
	alarm(LIMIT_S);
	LLVMFuzzerTestOneInput((const uint8_t *)data, bytes);
	alarm(0);
	free(data);
	count++;
}

static int is_input(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void run_directory(const char *path)
{
	struct dirent **list = NULL;
	int n = scandir(path, &list, is_input, alphasort);

	for (int i = 0; i < n; i++) {
		char *file = lh_asprintf("%s/%s", path, list[i]->d_name);

		run_file(file);
		free(file);
		free(list[i]);
	}
	free(list);
}

int main(int argc, char **argv)
{
	struct stat st;

	for (int i = 1; i < argc; i++)
		if (!stat(argv[i], &st) && S_ISDIR(st.st_mode))
			run_directory(argv[i]);
		else
			run_file(argv[i]);
	printf("%d inputs\n", count);
	return !count;
}
