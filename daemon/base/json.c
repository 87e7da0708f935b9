/* json.c: see json.h. */
#include "base/json.h"

#include <stdlib.h>

#include "base/fs.h"

int lh_json_read(const char *dir, const char *name, size_t max_bytes, json_t **out,
		 struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", dir, name), *text;
	size_t bytes;
	int rc = lh_fs_read(path, max_bytes, &text, &bytes, err);

	*out = NULL;
	if (!rc) {
		*out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
		free(text);
		if (!*out)
			rc = lh_err_set(err, LH_ECORRUPT, "'%s' is not JSON", path);
	}
	free(path);
	return rc;
}
