/* trial.c: see trial.h. */
#include "train/trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"

enum { TRIAL_MAX_BYTES = 1 << 20 };

bool lh_trial_read(const char *path, struct lh_trial *t)
{
	json_int_t step, command;
	const char *why;
	json_t *j, *watch;
	char *text;
	size_t bytes;
	int held;
	bool good;

	memset(t, 0, sizeof(*t));
	if (lh_fs_read(path, TRIAL_MAX_BYTES, &text, &bytes, NULL))
		return false;
	j = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	good = !json_unpack(j, "{s:I, s:i, s:i, s:I, s:b, s:i, s:s, s:o}", "step", &step,
			    "phase", &t->phase, "from", &t->from, "command", &command,
			    "held", &held, "attempts", &t->attempts, "why", &why, "watch",
			    &watch);
	good = good && t->phase >= 0 && t->phase < LH_PHASES_MAX && t->from >= 0 &&
	       t->from < LH_PHASES_MAX;
	if (good) {
		t->step = step;
		t->command = command;
		t->held = held;
		snprintf(t->why, sizeof(t->why), "%s", why);
		lh_watch_from_json(&t->watch, watch);
	}
	json_decref(j);
	return good;
}

int lh_trial_write(const char *path, const struct lh_trial *t, struct lh_err *err)
{
	char why[4 * sizeof(t->why)], *text;
	json_t *j = json_pack("{s:I, s:i, s:i, s:I, s:b, s:i, s:s, s:o}", "step",
			      (json_int_t)t->step, "phase", t->phase, "from", t->from,
			      "command", (json_int_t)t->command, "held", t->held, "attempts",
			      t->attempts, "why", lh_escape(why, sizeof(why), t->why),
			      "watch", lh_watch_to_json(&t->watch));
	int rc;

	LH_ASSERT(j);
	text = json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
	rc = lh_fs_write_atomic(path, text, strlen(text), err);
	free(text);
	json_decref(j);
	return rc;
}

bool lh_trial_is_same(const struct lh_trial *a, const struct lh_trial *b)
{
	return a->step == b->step && a->phase == b->phase && a->command == b->command;
}

bool lh_trial_is_again(const struct lh_trial *a, const struct lh_trial *b)
{
	return lh_trial_is_same(a, b) ||
	       (a->command && a->command == b->command && a->phase == b->phase);
}

bool lh_trial_has_failed(struct lh_trial *t)
{
	if (!*t->why && t->attempts >= LH_TRIAL_ATTEMPTS)
		snprintf(t->why, sizeof(t->why), "%d workers were lost in its first steps",
			 t->attempts);
	return *t->why;
}
