/* text_stream.h: ids that come one by one, as text that is told as it grows.
 *
 * A character may be in several ids, and what an id stands for may hang on those before
 * it (a space that begins a text is none). So some ids are decoded together, again with
 * each new one, and what the text grew by is told once it does not end in half a
 * character. One thread.
 */
#ifndef LIGHTHOUSE_CTL_TEXT_STREAM_H
#define LIGHTHOUSE_CTL_TEXT_STREAM_H

#include "tokenizer.h"

struct ctl_text_stream {
	struct ctl_tokenizer *t; /* borrowed */
	struct ctl_ids ids;      /* that are decoded together */
	int64_t held;            /* the last of them, of which nothing was told */
	size_t told_bytes;       /* of what they are together */
};

/* Goes on behind ids that are known already. */
int ctl_text_stream_begin(struct ctl_text_stream *s, struct ctl_tokenizer *t,
			  const int32_t *ids, int64_t n, struct lh_err *err);
/* *text: what is new, heap, perhaps "". */
int ctl_text_stream_add(struct ctl_text_stream *s, const int32_t *ids, int64_t n,
			char **text, struct lh_err *err);
/* What is still held. */
int ctl_text_stream_end(struct ctl_text_stream *s, char **text, struct lh_err *err);
void ctl_text_stream_release(struct ctl_text_stream *s); /* zeroed is allowed */

#endif
