/* loop_tell.c: what lhd and the log are told of a run; see loop_int.h. */
#include "train/loop_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

void lh_loop_post_take(struct lh_loop *l, const char *kind, json_t *fields)
{
	LH_ASSERT(fields);
	json_object_set_new(fields, "t", json_string(kind));
	json_object_set_new(fields, "step", json_integer(l->p.step));
	lh_link_post_take(l->link, fields);
}

/* Paths and messages may hold any bytes, JSON holds UTF-8. */
json_t *lh_loop_text_json(const char *text)
{
	char safe[4 * sizeof(((struct lh_err *)0)->text)];
	json_t *s = json_string(text);

	return s ? s : json_string(lh_escape(safe, sizeof(safe), text));
}

void lh_loop_tell(struct lh_loop *l, const char *level, const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	LH_ASSERT(n >= 0);
	lh_log(*level == 'w' ? LH_LOG_WARN : LH_LOG_INFO, "%s", text);
	lh_loop_post_take(l, "event", json_pack("{s:s, s:o}", "level", level, "text",
						lh_loop_text_json(text)));
	free(text);
}

void lh_loop_status(struct lh_loop *l, const char *doing)
{
	lh_link_status(l->link, l->p.step, l->p.phase, l->paused ? "paused" : "running",
		       doing);
}

void lh_loop_post_state(struct lh_loop *l, const char *state, const char *reason,
		       int64_t command)
{
	lh_loop_post_take(l, "state", json_pack("{s:s, s:o, s:I}", "state", state, "reason",
				   lh_loop_text_json(reason), "command",
				   (json_int_t)command));
}

void lh_loop_post_settings(struct lh_loop *l)
{
	lh_loop_post_take(l, "settings", json_pack("{s:o}", "settings",
						   lh_settings_to_json(&l->p.settings)));
}
