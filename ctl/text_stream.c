/* text_stream.c: see text_stream.h. */
#include "text_stream.h"

#include <stdlib.h>
#include <string.h>

/* Half a character has three ids at most; more of them than HELD_MAX are garbage that
 * will not become one. Decoded are at least CONTEXT ids, at most WINDOW and what is new. */
enum { CONTEXT = 8, WINDOW = 64, HELD_MAX = 8 };

static void append(struct ctl_ids *to, const int32_t *ids, int64_t n)
{
	if (to->count + n > to->cap) {
		to->cap = 2 * (to->count + n);
		to->ids = lh_realloc(to->ids, (size_t)to->cap * sizeof(*to->ids));
	}
	if (n)
		memcpy(to->ids + to->count, ids, (size_t)n * sizeof(*ids));
	to->count += n;
}

static int decode(struct ctl_text_stream *s, char **text, struct lh_err *err)
{
	return ctl_tokenizer_decode(s->t, s->ids.ids, s->ids.count, text, err);
}

/* Leaves CONTEXT ids, all of which were told. */
static int shorten(struct ctl_text_stream *s, struct lh_err *err)
{
	int64_t drop = s->ids.count - CONTEXT;
	char *text;

	if (drop <= 0)
		return 0;
	memmove(s->ids.ids, s->ids.ids + drop, CONTEXT * sizeof(*s->ids.ids));
	s->ids.count = CONTEXT;
	if (decode(s, &text, err))
		return err->code;
	s->told_bytes = strlen(text);
	free(text);
	return 0;
}

int ctl_text_stream_begin(struct ctl_text_stream *s, struct ctl_tokenizer *t,
			  const int32_t *ids, int64_t n, struct lh_err *err)
{
	int64_t skip = n > CONTEXT ? n - CONTEXT : 0;
	char *text;

	*s = (struct ctl_text_stream){ .t = t };
	append(&s->ids, ids + skip, n - skip);
	if (decode(s, &text, err))
		return err->code;
	s->told_bytes = strlen(text);
	free(text);
	return 0;
}

static bool ends_in_half(const char *text)
{
	size_t n = strlen(text);

	return n >= 3 && !strcmp(text + n - 3, "\xef\xbf\xbd");
}

/* The part of `text` that was not told, and is now. */
static char *tell(struct ctl_text_stream *s, const char *text)
{
	size_t n = strlen(text);
	char *news = lh_strdup(n > s->told_bytes ? text + s->told_bytes : "");

	s->told_bytes = n > s->told_bytes ? n : s->told_bytes;
	s->held = 0;
	return news;
}

int ctl_text_stream_add(struct ctl_text_stream *s, const int32_t *ids, int64_t n,
			char **text, struct lh_err *err)
{
	char *all;

	append(&s->ids, ids, n);
	s->held += n;
	if (decode(s, &all, err))
		return err->code;
	if (ends_in_half(all) && s->held <= HELD_MAX) {
		free(all);
		*text = lh_strdup("");
		return 0;
	}
	*text = tell(s, all);
	free(all);
	if (s->ids.count <= WINDOW || !shorten(s, err))
		return 0;
	free(*text);
	return err->code;
}

int ctl_text_stream_end(struct ctl_text_stream *s, char **text, struct lh_err *err)
{
	char *all;

	if (decode(s, &all, err))
		return err->code;
	*text = tell(s, all);
	free(all);
	return 0;
}

void ctl_text_stream_release(struct ctl_text_stream *s)
{
	free(s->ids.ids);
	*s = (struct ctl_text_stream){ 0 };
}
