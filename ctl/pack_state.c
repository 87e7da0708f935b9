/* pack_state.c: the place from which a pack that was cut short goes on. See pack.h.
 *
 * PREFIX.pack is written after the shards up to that place are on disk, so that they are
 * at least as long as it says. */
#include "pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"

enum { STATE_MAX_BYTES = 16 << 20 };

static char *path_of(const char *prefix)
{
	return lh_asprintf("%s.pack", prefix);
}

int pack_state_save(const char *prefix, const json_t *command,
		    const struct pack_place *place, const struct pack_counts *counts,
		    struct lh_err *err)
{
	char *path = path_of(prefix), seen[20], *text;
	json_t *j;
	int rc;

	snprintf(seen, sizeof(seen), "%016" PRIx64, place->seen);
	j = json_pack("{s:O, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:[I, I], s:[I, I], "
		      "s:[I, I]}",
		      "command", command, "files", (json_int_t)place->files, "offset",
		      (json_int_t)place->offset, "line", (json_int_t)place->line, "binary",
		      (json_int_t)place->binary, "unreadable",
		      (json_int_t)place->unreadable, "read", (json_int_t)place->bytes,
		      "seen", seen, "documents", (json_int_t)counts->documents[0],
		      (json_int_t)counts->documents[1], "bytes",
		      (json_int_t)counts->bytes[0], (json_int_t)counts->bytes[1], "ids",
		      (json_int_t)counts->ids[0], (json_int_t)counts->ids[1]);
	text = json_dumps(j, JSON_INDENT(1));
	rc = lh_fs_write_atomic(path, text, strlen(text), err);
	free(text);
	free(path);
	json_decref(j);
	return rc;
}

static bool is_sane(const struct pack_place *place, const struct pack_counts *counts)
{
	const int64_t all[] = { place->files, place->offset, place->line, place->binary,
				place->unreadable, place->bytes, counts->documents[0],
				counts->documents[1], counts->bytes[0], counts->bytes[1],
				counts->ids[0], counts->ids[1] };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (all[i] < 0 || all[i] > INT64_MAX / 4)
			return false;
	return true;
}

bool pack_state_load(const char *prefix, const json_t *command, struct pack_place *place,
		     struct pack_counts *counts)
{
	json_int_t files, offset, line, binary, unreadable, bytes, documents[2], texts[2],
		ids[2];
	char *path = path_of(prefix), *text = NULL;
	const char *seen;
	json_t *j = NULL;
	bool good;

	if (!lh_fs_read(path, STATE_MAX_BYTES, &text, &(size_t){ 0 }, NULL))
		j = json_loads(text, 0, NULL);
	good = j && json_equal(json_object_get(j, "command"), command) &&
	       !json_unpack(j, "{s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:[I, I], s:[I, I], "
			    "s:[I, I]}",
			    "files", &files, "offset", &offset, "line", &line, "binary",
			    &binary, "unreadable", &unreadable, "read", &bytes, "seen", &seen,
			    "documents", &documents[0], &documents[1], "bytes", &texts[0],
			    &texts[1], "ids", &ids[0], &ids[1]);
	if (good) {
		*place = (struct pack_place){ files, offset, line, binary, unreadable, bytes,
					      strtoull(seen, NULL, 16) };
		*counts = (struct pack_counts){ { documents[0], documents[1] },
						{ texts[0], texts[1] },
						{ ids[0], ids[1] } };
		good = is_sane(place, counts);
	}
	json_decref(j);
	free(text);
	free(path);
	return good;
}

void pack_state_remove(const char *prefix)
{
	char *path = path_of(prefix);

	unlink(path);
	free(path);
}
