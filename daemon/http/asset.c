/* asset.c: the page's files as answers.
 *
 * Names under /assets/ hold a hash of what is in them, so those never change; what else
 * there is is asked for again each time, by its ETag. */
#include "http/asset.h"

#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"

static int compare(const void *path, const void *asset)
{
	return strcmp(path, ((const struct lh_asset *)asset)->path);
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
	const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);

	return value ? value : "";
}

/* Borrows what it sends: it is in the program. */
static struct MHD_Response *response_of(const struct lh_asset *a, bool packed)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		packed ? a->gzip_bytes : a->bytes, (void *)(packed ? a->gzip : a->data),
		MHD_RESPMEM_PERSISTENT);

	LH_ASSERT(response);
	if (packed)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
	return response;
}

bool lh__asset_queue(struct MHD_Connection *connection, const char *path,
		     enum MHD_Result *rc)
{
	const struct lh_asset *a = bsearch(path, lh_assets, (size_t)lh_asset_count,
					   sizeof(*lh_assets), compare);
	bool packed, known;
	struct MHD_Response *response;

	if (!a)
		return false;
	packed = a->gzip &&
		 strstr(header(connection, MHD_HTTP_HEADER_ACCEPT_ENCODING), "gzip");
	known = strstr(header(connection, MHD_HTTP_HEADER_IF_NONE_MATCH), a->etag);
	response = known ? MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT) :
			   response_of(a, packed);
	lh__response_guard(response);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, a->etag);
	MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Accept-Encoding");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL,
				!strncmp(path, "/assets/", 8) ?
					"public, max-age=31536000, immutable" : "no-cache");
	*rc = MHD_queue_response(connection, known ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK,
				 response);
	MHD_destroy_response(response);
	return true;
}
