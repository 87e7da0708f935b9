/* rule_action.c: see rule_action.h. */
#include "jobs/rule_action.h"

#include <stdlib.h>
#include <string.h>

#include "train/settings.h"

/* What may stand behind a verb: nothing, a word that is a flag, or a name. */
static const struct verb {
	const char *name, *flag, *key;
	bool key_required;
} verbs[] = {
	{ "switch", NULL, "phase", false },    { "pause", "release", NULL, false },
	{ "resume", NULL, NULL, false },       { "checkpoint", "pin", NULL, false },
	{ "cancel", NULL, NULL, false },       { "exec", NULL, "file", true },
};

static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789._-";

/* "NAME=VALUE ..." */
static int parse_set(struct lh_rule_action *a, const char *text, struct lh_err *err)
{
	int rc;

	a->verb = "set";
	a->args = json_object();
	do {
		size_t n = strcspn(text, " ");
		char *pair = lh_asprintf("%.*s", (int)n, text);

		rc = lh_settings_parse(a->args, pair, err);
		free(pair);
		text += n + strspn(text + n, " ");
	} while (!rc && *text);
	if (rc)
		lh_rule_action_release(a);
	return rc;
}

static int refuse(const char *text, struct lh_err *err)
{
	lh_err_set(err, LH_EINVAL, "'%.100s' is nothing that a rule can do", text);
	return lh_err_hint(err, "do: switch PHASE, set NAME=VALUE..., pause [release], resume, "
				"checkpoint [pin], cancel, or exec FILE");
}

int lh_rule_action_parse(struct lh_rule_action *a, const char *text, struct lh_err *err)
{
	size_t n = strcspn(text, " ");
	const char *word = text + n + strspn(text + n, " ");
	const struct verb *v = NULL;

	if (n == strlen("set") && !strncmp(text, "set", n))
		return parse_set(a, word, err);
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (strlen(verbs[i].name) == n && !strncmp(verbs[i].name, text, n))
			v = &verbs[i];
	/* One plain name: a file of the hooks directory is no path. */
	if (!v || *word == '.' || strspn(word, name_bytes) != strlen(word) ||
	    (*word && !v->key && (!v->flag || strcmp(word, v->flag))) ||
	    (!*word && v->key_required))
		return refuse(text, err);
	a->verb = v->name;
	a->args = json_object();
	if (*word && v->key)
		json_object_set_new(a->args, v->key, json_string(word));
	else if (*word)
		json_object_set_new(a->args, word, json_true());
	return 0;
}

void lh_rule_action_release(struct lh_rule_action *a)
{
	json_decref(a->args);
	a->args = NULL;
}
