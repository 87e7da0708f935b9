/* walk.h: the documents of a shard, one after the other, and an index of them.
 *
 * Where a shard's documents end its separators say, and to find all of them every id is
 * read: minutes, of a shard of hundreds of gigabytes. So PATH.documents lies beside a
 * shard that `lhctl pack` made, little-endian, a 64-byte header and then a length for
 * each document, in ids, its separator included:
 *   0  char[8]  magic "LHDOCEND"
 *   8  u32      version, 1
 *   12 u32      0
 *   16 u64      count of documents
 *   24 u64      checksum of the shard's header, which holds one of its ids
 *   32 u64      xxh64 (seed 0) of the lengths
 *   40 u64[2]   0
 *   56 u64      xxh64 of header bytes 0..55
 * It is a hint: one that is of another shard, damaged, or not there is passed over, and
 * the ids are read. What comes out is the same.
 *
 *   lh_walk_open(&d, &shard, scan);
 *   while (d.at < shard.count && lh_walk_next(&d)) ... one ends at d.at ...
 *   lh_walk_close(&d);
 *
 * One thread at a time.
 */
#ifndef LIGHTHOUSE_WALK_H
#define LIGHTHOUSE_WALK_H

#include "lighthouse/shard.h"

/* Who may be told to end meanwhile: asked every LH_SCAN_IDS ids or so. */
struct lh_scan {
	bool (*go_on)(void *arg); /* false: it is left off */
	void *arg;
};
enum { LH_SCAN_IDS = 4 << 20 };

struct lh_walk {
	int64_t at;               /* the id that the next one begins with */
	const struct lh_shard *shard; /* borrowed */
	const struct lh_scan *scan;   /* borrowed, or NULL */
	const uint32_t *lengths;  /* mapped; NULL: ids are read */
	int64_t count, next;      /* of lengths */
	int64_t asked_at;
	void *map;
	int64_t map_bytes;
};

/* A shard that has documents. Reads the index once, if there is one. */
void lh_walk_open(struct lh_walk *d, const struct lh_shard *s,
		       const struct lh_scan *scan);
/* Goes to the end of a document; false: told to leave off. Behind the last one it is not
 * called. */
bool lh_walk_next(struct lh_walk *d);
void lh_walk_close(struct lh_walk *d);

#endif
