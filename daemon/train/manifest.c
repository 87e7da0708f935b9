/* manifest.c: see manifest.h. */
#include "train/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/io.h"
#include "lighthouse/job.h"
#include "lighthouse/version.h"

#define FORMAT "lighthouse-checkpoint"
#define MANIFEST LH_MANIFEST_FILE
/* A job's checkpoints need no newer program than OF_JOBS. A manifest is mostly the list
 * of shards, twice. */
enum { VERSION = 3, OF_JOBS = 2, OLDEST = 1, MANIFEST_MAX_BYTES = 64 << 20,
       PIECE_BYTES = 1 << 20 };

/* ---- names ----------------------------------------------------------------- */

/* Files are known by these, whatever names a manifest holds: it may be foreign. */
static const char *const kind_names[LH_MANIFEST_KINDS] = { "params", "moments" };

void lh_manifest_file_name(char name[LH_MANIFEST_NAME_BYTES], enum lh_manifest_kind kind,
			   int i, int n)
{
	if (n == 1)
		snprintf(name, LH_MANIFEST_NAME_BYTES, "%s.safetensors", kind_names[kind]);
	else
		snprintf(name, LH_MANIFEST_NAME_BYTES, "%s-%05d-of-%05d.safetensors",
			 kind_names[kind], i + 1, n);
}

int lh_manifest_file_count(const json_t *manifest, enum lh_manifest_kind kind)
{
	json_t *files = json_object_get(manifest, "files"), *file;
	size_t bytes = strlen(kind_names[kind]);
	const char *name;
	int n = 0;

	if (kind == LH_MANIFEST_MOMENTS &&
	    json_is_true(json_object_get(json_object_get(manifest, "origin"),
					 LH_MANIFEST_WEIGHTS_ONLY)))
		return 0;
	json_object_foreach(files, name, file)
		n += !strncmp(name, kind_names[kind], bytes) && n < LH_MANIFEST_FILES_MAX;
	return n ? n : 1;
}

/* ---- writing --------------------------------------------------------------- */

static void hash_text(char out[20], uint64_t xxh64)
{
	snprintf(out, 20, "%016" PRIx64, xxh64);
}

void lh_manifest_add_file(json_t *files, const char *file, int64_t bytes, uint64_t xxh64)
{
	char text[20];

	hash_text(text, xxh64);
	json_object_set_new(files, file,
			    json_pack("{s:I, s:s}", "bytes", (json_int_t)bytes, "xxh64",
				      text));
}

static json_t *switch_to_json(const struct lh_progress *p)
{
	json_t *voided = json_array();

	for (int i = 0; i < p->voided_count; i++)
		json_array_append_new(voided, json_integer(p->voided[i]));
	return json_pack("{s:I, s:b, s:b, s:o}", "command", (json_int_t)p->phase_command,
			 "trial", p->trial, "held", p->held, "voided", voided);
}

/* NULL or a strange one: no switch is watched and none was taken back. */
static void switch_from_json(struct lh_progress *p, const json_t *j)
{
	json_t *voided = json_object_get(j, "voided");
	size_t n = json_array_size(voided);

	p->phase_command = json_integer_value(json_object_get(j, "command"));
	p->trial = json_is_true(json_object_get(j, "trial"));
	p->held = json_is_true(json_object_get(j, "held"));
	p->voided_count = n > LH_VOIDED_MAX ? LH_VOIDED_MAX : (int)n;
	for (int i = 0; i < p->voided_count; i++)
		p->voided[i] = json_integer_value(json_array_get(voided, (size_t)i));
}

static json_t *manifest_of(const struct lh_progress *p, const json_t *spec,
			   const json_t *origin, json_t *files)
{
	bool alone = json_is_true(json_object_get(origin, LH_MANIFEST_WEIGHTS_ONLY));
	int version = alone ? VERSION : OF_JOBS;

	return json_pack("{s:s, s:i, s:s, s:I, s:I, s:I, s:i, s:I, s:I, s:f, s:I, s:I, "
			 "s:b, s:o, s:o, s:o, s:O, s:O, s:O}",
			 "format", FORMAT, "version", version, "written_by", lh_build,
			 "attempt", (json_int_t)p->attempt, "step", (json_int_t)p->step,
			 "command", (json_int_t)p->command, "phase", p->phase,
			 "phase_step", (json_int_t)p->phase_step, "phase_tokens",
			 (json_int_t)p->phase_tokens, "phase_ms", p->phase_ms, "cursor",
			 (json_int_t)p->cursor, "total_steps",
			 (json_int_t)p->total_steps, "owed", p->owed, "watch",
			 lh_watch_to_json(&p->watch), "settings",
			 lh_settings_to_json(&p->settings), "switch", switch_to_json(p),
			 "files", files, "origin", (json_t *)origin, "job",
			 (json_t *)spec);
}

int lh_manifest_write(const char *dir, const struct lh_progress *p, const json_t *spec,
		      const json_t *origin, json_t *files, int64_t *bytes,
		      struct lh_err *err)
{
	json_t *manifest = manifest_of(p, spec, origin, files);
	char *path = lh_asprintf("%s/" MANIFEST, dir), *text;
	int rc;

	LH_ASSERT(manifest);
	text = json_dumps(manifest, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
	rc = lh_fs_write_atomic(path, text, strlen(text), err);
	*bytes = (int64_t)strlen(text);
	free(path);
	free(text);
	json_decref(manifest);
	return rc;
}

/* ---- reading --------------------------------------------------------------- */

/* *bytes: of the file. */
static int read_manifest(const char *dir, json_t **out, size_t *bytes,
			 struct lh_err *err)
{
	char *file = lh_asprintf("%s/" MANIFEST, dir), *text;
	const char *format = "";
	int version = 0, rc = lh_fs_read(file, MANIFEST_MAX_BYTES, &text, bytes, err);

	free(file);
	if (rc)
		return rc;
	*out = json_loadb(text, *bytes, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	json_unpack(*out, "{s:s, s:i}", "format", &format, "version", &version);
	if (strcmp(format, FORMAT))
		rc = lh_err_set(err, LH_ECORRUPT, "the manifest is damaged");
	else if (version < OLDEST || version > VERSION)
		rc = lh_err_set(err, LH_EUNSUPPORTED, "format version %d, this program "
				"reads %d to %d", version, OLDEST, VERSION);
	if (!rc)
		return 0;
	json_decref(*out);
	*out = NULL;
	return rc;
}

int lh_manifest_read(const char *dir, json_t **manifest, struct lh_err *err)
{
	size_t bytes;

	return read_manifest(dir, manifest, &bytes, err);
}

int lh_manifest_progress(const json_t *manifest, struct lh_progress *p,
			 struct lh_err *err)
{
	json_int_t attempt, step, command, phase_step, tokens, cursor, total;

	if (json_unpack((json_t *)manifest,
			"{s:I, s:I, s:I, s:i, s:I, s:I, s:F, s:I, s:I}", "attempt",
			&attempt, "step", &step, "command", &command, "phase", &p->phase,
			"phase_step", &phase_step, "phase_tokens", &tokens, "phase_ms",
			&p->phase_ms, "cursor", &cursor, "total_steps", &total) ||
	    step < 0 || p->phase < 0 || p->phase >= LH_PHASES_MAX || cursor < 0)
		return lh_err_set(err, LH_ECORRUPT,
				  "the manifest lacks a field or holds a wrong value");
	p->attempt = attempt;
	p->step = step;
	p->command = command;
	p->phase_step = phase_step;
	p->phase_tokens = tokens;
	p->cursor = cursor + LH_PLANTED("stale_cursor");
	p->total_steps = total;
	p->owed = json_is_true(json_object_get(manifest, "owed"));
	lh_watch_from_json(&p->watch, json_object_get(manifest, "watch"));
	lh_settings_from_json(&p->settings, json_object_get(manifest, "settings"));
	if (p->settings.mix.since > cursor)
		return lh_err_set(err, LH_ECORRUPT, "the manifest has weights of draws that "
				  "are to come");
	switch_from_json(p, json_object_get(manifest, "switch"));
	return 0;
}

int lh_manifest_match(const json_t *manifest, const char *file, int64_t bytes,
		      uint64_t xxh64, struct lh_err *err)
{
	const char *want;
	json_int_t want_bytes;
	char have[20];

	if (json_unpack((json_t *)manifest, "{s:{s:{s:I, s:s}}}", "files", file, "bytes",
			&want_bytes, "xxh64", &want))
		return lh_err_set(err, LH_ECORRUPT,
				  "the manifest lacks size or checksum of '%s'", file);
	if (want_bytes != bytes)
		return lh_err_set(err, LH_ECORRUPT, "'%s' has %" PRId64 " bytes, the "
				  "manifest says %" PRId64, file, bytes,
				  (int64_t)want_bytes);
	hash_text(have, xxh64);
	if (!strcmp(want, have))
		return 0;
	return lh_err_set(err, LH_ECORRUPT, "'%s' does not match its checksum", file);
}

/* ---- verifying ------------------------------------------------------------- */

/* By read, not mapped: a disk that fails gives an error then, not SIGBUS. */
static int hash_fd(int fd, const char *file, int64_t *bytes, uint64_t *xxh64,
		   struct lh_err *err)
{
	char *piece = lh_alloc(PIECE_BYTES);
	XXH64_state_t *state = XXH64_createState();
	ssize_t n;

	LH_ASSERT(state);
	XXH64_reset(state, 0);
	for (*bytes = 0; (n = lh_io->read(fd, piece, PIECE_BYTES)) != 0;) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		XXH64_update(state, piece, (size_t)n);
		*bytes += n;
	}
	*xxh64 = XXH64_digest(state);
	XXH64_freeState(state);
	free(piece);
	return n < 0 ? lh_err_set(err, LH_EIO, "cannot read '%s': %s", file,
				  strerror(errno)) : 0;
}

static int verify_file(const char *dir, const json_t *manifest, const char *file,
		       int64_t *bytes, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", dir, file);
	/* A pipe of that name must not block. */
	int fd = lh_io->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0), rc;
	uint64_t xxh64;

	free(path);
	*bytes = 0;
	if (fd < 0)
		return errno == ENOENT ?
			lh_err_set(err, LH_ENOTFOUND, "'%s' is missing", file) :
			lh_err_set(err, LH_EIO, "cannot open '%s': %s", file,
				   strerror(errno));
	rc = hash_fd(fd, file, bytes, &xxh64, err);
	lh_io->close(fd);
	return rc ? rc : lh_manifest_match(manifest, file, *bytes, xxh64, err);
}

/* All files of a kind; the first error is returned. */
static int verify_kind(const char *dir, const json_t *manifest, enum lh_manifest_kind kind,
		       lh_manifest_verified verified, void *arg, struct lh_err *err)
{
	int n = lh_manifest_file_count(manifest, kind), rc = 0;

	for (int i = 0; i < n; i++) {
		char name[LH_MANIFEST_NAME_BYTES];
		struct lh_err why = LH_ERR_INIT;
		int64_t bytes;
		int bad;

		lh_manifest_file_name(name, kind, i, n);
		bad = verify_file(dir, manifest, name, &bytes, &why);
		verified(arg, name, bytes, bad ? &why : NULL);
		if (bad && !rc) {
			*err = why;
			rc = bad;
		}
	}
	return rc;
}

static void add_hint(struct lh_err *err)
{
	if (err->code == LH_EUNSUPPORTED)
		lh_err_hint(err, "the version of this program that wrote it reads it");
	else if (err->code == LH_EIO)
		lh_err_hint(err, "it may be whole: see to the disk and the permissions, "
			    "then verify again");
	else
		lh_err_hint(err, "its job, when it next goes on from a checkpoint, takes "
			    "the newest one that is whole");
}

int lh_manifest_verify(const char *dir, lh_manifest_verified verified, void *arg,
		       struct lh_err *err)
{
	struct lh_progress p;
	json_t *manifest = NULL;
	size_t manifest_bytes = 0;
	int rc;

	if (!lh_fs_exists(dir)) {
		lh_err_set(err, LH_ENOTFOUND, "there is no checkpoint '%s'", dir);
		return lh_err_hint(err, "'lhctl checkpoints JOB' lists those of a job; older "
				   "ones are removed as newer ones are written");
	}
	rc = read_manifest(dir, &manifest, &manifest_bytes, err);
	if (!rc)
		rc = lh_manifest_progress(manifest, &p, err);
	verified(arg, MANIFEST, (int64_t)manifest_bytes, rc ? err : NULL);
	/* Without a manifest nothing is known of the others. */
	for (int kind = 0; manifest && kind < LH_MANIFEST_KINDS; kind++) {
		struct lh_err why = LH_ERR_INIT;
		int bad = verify_kind(dir, manifest, (enum lh_manifest_kind)kind, verified,
				      arg, &why);

		if (bad && !rc) {
			*err = why;
			rc = bad;
		}
	}
	json_decref(manifest);
	if (!rc)
		return 0;
	add_hint(err);
	return lh_err_prefix(err, "checkpoint '%s'", dir);
}
