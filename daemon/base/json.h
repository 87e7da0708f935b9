/* json.h: files of JSON. Any thread. */
#ifndef LIGHTHOUSE_JSON_H
#define LIGHTHOUSE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "lighthouse/err.h"

/* *out: what DIR/NAME holds, the caller's; NULL after an error. That of lh_fs_read, or
 * LH_ECORRUPT: it is no JSON, or an object names a key twice. */
int lh_json_read(const char *dir, const char *name, size_t max_bytes, json_t **out,
		 struct lh_err *err);

#endif
