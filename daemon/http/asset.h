/* asset.h: the files of the page, built into lhd by http/embed.
 *
 * A table sorted by path. Each file is kept as it is and, where that is smaller, as
 * gzip wrote it. Read-only data; any thread. */
#ifndef LIGHTHOUSE_ASSET_H
#define LIGHTHOUSE_ASSET_H

#include <stddef.h>

struct lh_asset {
	const char *path;          /* "/assets/main-1a2b.js"; index.html is "/" */
	const char *type;
	const char *etag;          /* W/"...": of the content, packed or not */
	const unsigned char *data;
	size_t bytes;
	const unsigned char *gzip; /* NULL: none */
	size_t gzip_bytes;
};

extern const struct lh_asset lh_assets[]; /* generated */
extern const int lh_asset_count;

#endif
