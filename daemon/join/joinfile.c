/* joinfile.c: see joinfile.h. */
#include "join/joinfile.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"

enum { FILE_MAX_BYTES = 4096 };

int lh_joinfile_write(const char *path, int64_t id, const struct lh_job *job,
		      struct lh_err *err)
{
	char token[LH_TOKEN_TEXT_BYTES], *text;
	json_t *j;
	int rc;

	lh_sealed_random(token, sizeof(token));
	j = json_pack("{s:I, s:s, s:s, s:i, s:s, s:s}", "job", (json_int_t)id, "name",
		      job->name, "device", job->device == LH_DEVICE_CUDA ? "cuda" : "cpu",
		      "devices", job->devices, "address", job->join, "token", token);
	LH_ASSERT(j);
	text = json_dumps(j, JSON_INDENT(1));
	rc = lh_fs_write_atomic(path, text, strlen(text), err);
	free(text);
	json_decref(j);
	return rc;
}

static int parse(struct lh_joinfile *f, const char *path, const char *text,
		 struct lh_err *err)
{
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	const char *device, *address, *token;
	json_int_t job;
	int rc = 0;

	if (json_unpack(j, "{s:I, s:s, s:i, s:s, s:s}", "job", &job, "device", &device,
			"devices", &f->devices, "address", &address, "token", &token) ||
	    strlen(token) != sizeof(f->token) - 1 || lh_address_check(address, NULL) ||
	    f->devices < 2) {
		rc = lh_err_set(err, LH_ECORRUPT, "'%s' does not say how to join a job",
				path);
		lh_err_hint(err, "the file is STATE/jobs/ID/join of a job with join:");
	} else {
		f->job = job;
		f->device = strcmp(device, "cuda") ? LH_DEVICE_CPU : LH_DEVICE_CUDA;
		memcpy(f->token, token, sizeof(f->token));
		strcpy(f->address, address);
	}
	json_decref(j);
	return rc;
}

int lh_joinfile_read(struct lh_joinfile *f, const char *path, struct lh_err *err)
{
	struct stat st;
	size_t bytes;
	char *text;
	int rc = lh_fs_read(path, FILE_MAX_BYTES, &text, &bytes, err);

	*f = (struct lh_joinfile){ 0 };
	if (rc)
		return rc;
	if (!stat(path, &st) && st.st_mode & 077) {
		rc = lh_err_set(err, LH_EDENIED, "others may read '%s'", path);
		lh_err_hint(err, "chmod 600 '%s'; who has the token may be a rank", path);
	} else {
		rc = parse(f, path, text, err);
	}
	free(text);
	return rc;
}
