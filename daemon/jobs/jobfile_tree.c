/* jobfile_tree.c: YAML, JSON and overrides as one kind of tree, with lines.
 *
 * Pure; any thread. Refuses what makes YAML surprising: anchors, aliases, tags,
 * several documents, repeated keys, keys that are not plain scalars. */
#include "jobs/jobfile_int.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* Keys of a section are looked for one after the other. */
enum { DEPTH_MAX = 16, TEXT_MAX_BYTES = 1 << 20, NODES_MAX = 20000, KEYS_MAX = 1000 };

void lh_node_free(struct lh_node *n)
{
	if (!n)
		return;
	for (int i = 0; i < n->count; i++)
		lh_node_free(n->child[i]);
	free(n->child);
	free(n->key);
	free(n->text);
	free(n);
}

static struct lh_node *node_new(enum lh_node_kind kind, int line, const char *origin)
{
	struct lh_node *n = lh_calloc(1, sizeof(*n));

	n->kind = kind;
	n->line = line;
	n->origin = origin;
	return n;
}

static void append_take(struct lh_node *to, struct lh_node *child)
{
	to->child = lh_realloc(to->child, (size_t)(to->count + 1) * sizeof(*to->child));
	to->child[to->count++] = child;
}

struct lh_node *lh_node_get(const struct lh_node *map, const char *key)
{
	for (int i = 0; map && map->kind == LH_NODE_MAP && i < map->count; i++)
		if (!strcmp(map->child[i]->key, key))
			return map->child[i];
	return NULL;
}

/* A key that the map does not have. */
static void add_take(struct lh_node *map, const char *key, struct lh_node *child)
{
	child->key = lh_strdup(key);
	append_take(map, child);
}

void lh_node_put_take(struct lh_node *map, const char *key, struct lh_node *child)
{
	free(child->key);
	child->key = lh_strdup(key);
	for (int i = 0; i < map->count; i++)
		if (!strcmp(map->child[i]->key, key)) {
			lh_node_free(map->child[i]);
			map->child[i] = child;
			return;
		}
	append_take(map, child);
}

/* What fits beside a message: of a long path, its end. */
static const char *shown(const char *origin)
{
	size_t n = strlen(origin);

	return n > 160 ? origin + n - 160 : origin;
}

int lh_node_blame(const struct lh_node *n, const char *path, struct lh_err *err)
{
	if (path && *path)
		lh_err_prefix(err, "%s", path);
	if (n && n->origin && n->line)
		return lh_err_prefix(err, "%s:%d", shown(n->origin), n->line);
	if (n && n->origin)
		return lh_err_prefix(err, "--set '%.160s'", n->origin);
	return err->code;
}

/* ---- YAML ------------------------------------------------------------------ */

struct parse {
	yaml_parser_t parser;
	const char *origin;
	struct lh_err *err;
	int nodes;
};

static int refuse(struct parse *p, int line, const char *hint, const char *what)
{
	lh_err_set(p->err, LH_EJOBFILE, "%s:%d: %s", shown(p->origin), line, what);
	return lh_err_hint(p->err, "%s", hint);
}

static int next_event(struct parse *p, yaml_event_t *e)
{
	if (yaml_parser_parse(&p->parser, e))
		return 0;
	lh_err_set(p->err, LH_EJOBFILE, "%s:%zu: not YAML: %s", shown(p->origin),
		   p->parser.problem_mark.line + 1,
		   p->parser.problem ? p->parser.problem : "invalid bytes");
	return lh_err_hint(p->err, "'lhctl help job' shows a job file");
}

static int parse_node(struct parse *p, yaml_event_t *e, int depth, struct lh_node **out);

/* Anchors, aliases and tags of an event. */
static int refuse_specials(struct parse *p, const yaml_event_t *e, int line)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;

	if (e->type == YAML_ALIAS_EVENT)
		return refuse(p, line, "write the value out", "aliases are not allowed");
	if (e->type == YAML_SCALAR_EVENT) {
		anchor = e->data.scalar.anchor;
		tag = e->data.scalar.tag;
	} else if (e->type == YAML_MAPPING_START_EVENT) {
		anchor = e->data.mapping_start.anchor;
		tag = e->data.mapping_start.tag;
	} else if (e->type == YAML_SEQUENCE_START_EVENT) {
		anchor = e->data.sequence_start.anchor;
		tag = e->data.sequence_start.tag;
	}
	if (anchor)
		return refuse(p, line, "write the value out", "anchors are not allowed");
	if (tag)
		return refuse(p, line, "write the plain value", "tags are not allowed");
	return 0;
}

static int parse_list(struct parse *p, int depth, struct lh_node *list)
{
	for (;;) {
		struct lh_node *item;
		yaml_event_t e;
		int rc = next_event(p, &e);

		if (rc)
			return rc;
		if (e.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&e);
			return 0;
		}
		rc = parse_node(p, &e, depth + 1, &item);
		if (rc)
			return rc;
		append_take(list, item);
	}
}

/* Whether the map takes one more key, and this one. */
static int check_key(struct parse *p, const struct lh_node *map, const struct lh_node *key)
{
	char *what;
	int rc;

	if (map->count == KEYS_MAX)
		return refuse(p, key->line, "'lhctl help job' lists all keys",
			      "too many keys in one section");
	if (key->kind != LH_NODE_SCALAR)
		return refuse(p, key->line, "write a word", "a key is not a plain word");
	if (!lh_node_get(map, key->text))
		return 0;
	what = lh_asprintf("%s: the key stands here twice", key->text);
	rc = refuse(p, key->line, "keep one of them", what);
	free(what);
	return rc;
}

static int parse_map(struct parse *p, int depth, struct lh_node *map)
{
	for (;;) {
		struct lh_node *key, *value;
		yaml_event_t e;
		int rc = next_event(p, &e);

		if (rc)
			return rc;
		if (e.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&e);
			return 0;
		}
		rc = parse_node(p, &e, depth + 1, &key);
		if (rc)
			return rc;
		rc = check_key(p, map, key);
		if (!rc)
			rc = next_event(p, &e);
		if (!rc)
			rc = parse_node(p, &e, depth + 1, &value);
		if (!rc) {
			add_take(map, key->text, value);
			/* A value may begin on a later line than its key. */
			value->line = key->line;
		}
		lh_node_free(key);
		if (rc)
			return rc;
	}
}

/* Consumes the event. */
static int parse_node(struct parse *p, yaml_event_t *e, int depth, struct lh_node **out)
{
	int line = (int)e->start_mark.line + 1, rc = refuse_specials(p, e, line);
	struct lh_node *n = node_new(LH_NODE_SCALAR, line, p->origin);
	yaml_event_type_t type = e->type;

	if (!rc && (depth > DEPTH_MAX || ++p->nodes > NODES_MAX))
		rc = refuse(p, line, "a job file is a few levels deep",
			    "too deeply nested or too many values");
	if (!rc && type == YAML_SCALAR_EVENT) {
		if (strlen((char *)e->data.scalar.value) != e->data.scalar.length)
			rc = refuse(p, line, "remove it", "a NUL byte in a value");
		n->text = lh_strdup((char *)e->data.scalar.value);
		n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	}
	yaml_event_delete(e);
	if (!rc && type == YAML_SEQUENCE_START_EVENT) {
		n->kind = LH_NODE_LIST;
		rc = parse_list(p, depth, n);
	} else if (!rc && type == YAML_MAPPING_START_EVENT) {
		n->kind = LH_NODE_MAP;
		rc = parse_map(p, depth, n);
	}
	if (rc)
		lh_node_free(n);
	else
		*out = n;
	return rc;
}

static int parse_document(struct parse *p, struct lh_node **out)
{
	yaml_event_t e;
	int rc;

	for (;;) {
		rc = next_event(p, &e);
		if (rc)
			return rc;
		if (e.type != YAML_STREAM_START_EVENT &&
		    e.type != YAML_DOCUMENT_START_EVENT)
			break;
		yaml_event_delete(&e);
	}
	if (e.type == YAML_STREAM_END_EVENT) {
		yaml_event_delete(&e);
		return refuse(p, 1, "'lhctl help job' shows a job file",
			      "the file is empty");
	}
	rc = parse_node(p, &e, 0, out);
	if (rc)
		return rc;
	for (;;) {
		rc = next_event(p, &e);
		if (rc)
			break;
		if (e.type == YAML_STREAM_END_EVENT) {
			yaml_event_delete(&e);
			return 0;
		}
		if (e.type == YAML_DOCUMENT_START_EVENT)
			rc = refuse(p, (int)e.start_mark.line + 1, "one job a file",
				    "a second document");
		yaml_event_delete(&e);
		if (rc)
			break;
	}
	lh_node_free(*out);
	*out = NULL;
	return rc;
}

/* Tags are refused where they stand; but libyaml compares each directive for them
 * with all before it, and a file has room for a hundred thousand. */
static int refuse_directives(struct parse *p, const char *text, size_t bytes)
{
	const char *at = memmem(text, bytes, "%TAG", strlen("%TAG"));
	int line = 1;

	if (!at)
		return 0;
	for (const char *c = text; c < at; c++)
		line += *c == '\n';
	return refuse(p, line, "write plain values", "%TAG is not allowed");
}

int lh_node_from_yaml(struct lh_node **out, const char *text, size_t bytes,
		      const char *origin, struct lh_err *err)
{
	struct parse p = { .origin = origin, .err = err };
	int rc;

	*out = NULL;
	if (bytes > TEXT_MAX_BYTES) {
		lh_err_set(err, LH_EJOBFILE, "%s: %zu bytes, at most %d are allowed",
			   shown(origin), bytes, TEXT_MAX_BYTES);
		return lh_err_hint(err, "is this a job file?");
	}
	if (refuse_directives(&p, text, bytes))
		return err->code;
	if (!yaml_parser_initialize(&p.parser))
		LH_BUG("libyaml cannot start");
	yaml_parser_set_encoding(&p.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&p.parser, (const unsigned char *)text, bytes);
	rc = parse_document(&p, out);
	yaml_parser_delete(&p.parser);
	return rc;
}

/* ---- JSON ------------------------------------------------------------------ */

struct lh_node *lh_node_from_json(const json_t *json)
{
	struct lh_node *n = node_new(LH_NODE_SCALAR, 0, NULL);
	const char *key;
	json_t *value;
	size_t i;

	switch (json_typeof(json)) {
	case JSON_OBJECT:
		n->kind = LH_NODE_MAP;
		json_object_foreach ((json_t *)json, key, value)
			add_take(n, key, lh_node_from_json(value));
		break;
	case JSON_ARRAY:
		n->kind = LH_NODE_LIST;
		json_array_foreach ((json_t *)json, i, value)
			append_take(n, lh_node_from_json(value));
		break;
	case JSON_STRING:
		n->text = lh_strdup(json_string_value(json));
		n->quoted = true;
		break;
	case JSON_INTEGER:
		n->text = lh_asprintf("%" JSON_INTEGER_FORMAT, json_integer_value(json));
		break;
	case JSON_REAL:
		n->text = lh_asprintf("%.17g", json_real_value(json));
		break;
	default:
		n->text = lh_strdup(json_is_true(json) ? "true" :
				    json_is_false(json) ? "false" : "null");
	}
	return n;
}

/* ---- paths and overrides --------------------------------------------------- */

/* Child by key, list index, or the name of a phase; the word ends at `n`. */
static struct lh_node *step_into(const struct lh_node *at, const char *word, size_t n)
{
	char key[256], *end;
	long i;

	snprintf(key, sizeof(key), "%.*s", (int)n, word);
	if (at->kind == LH_NODE_MAP)
		return lh_node_get(at, key);
	if (at->kind != LH_NODE_LIST)
		return NULL;
	i = strtol(key, &end, 10);
	if (*key && !*end)
		return i >= 0 && i < at->count ? at->child[i] : NULL;
	for (i = 0; i < at->count; i++) {
		const struct lh_node *name = lh_node_get(at->child[i], "name");

		if (name && name->text && !strcmp(name->text, key))
			return at->child[i];
	}
	return NULL;
}

const struct lh_node *lh_node_find(const struct lh_node *root, const char *path)
{
	while (root && *path) {
		size_t n = strcspn(path, ".");
		const struct lh_node *next = step_into(root, path, n);

		if (!next)
			break;
		root = next;
		path += n + (path[n] == '.');
	}
	return root;
}

static int bad_override(const char *set, const char *hint, struct lh_err *err)
{
	lh_err_set(err, LH_EJOBFILE, "--set '%.160s': no such place in the job file", set);
	return lh_err_hint(err, "%s", hint);
}

/* A value off the command line has no line, at any depth. */
static void set_origin(struct lh_node *n, const char *set)
{
	n->line = 0;
	n->origin = set;
	for (int i = 0; i < n->count; i++)
		set_origin(n->child[i], set);
}

static int parse_override(struct lh_node **value, const char *set, const char *text,
			  struct lh_err *err)
{
	if (!text[strspn(text, " \t\n")]) {
		lh_err_set(err, LH_EJOBFILE, "--set '%.160s': there is no value", set);
		return lh_err_hint(err, "an empty text is written KEY='\"\"'");
	}
	if (lh_node_from_yaml(value, text, strlen(text), "value", err))
		return lh_err_prefix(err, "--set '%.160s'", set);
	set_origin(*value, set);
	return 0;
}

int lh_node_override(struct lh_node *root, const char *set, struct lh_err *err)
{
	const char *eq = strchr(set, '='), *word = set;
	struct lh_node *at = root, *value;
	char key[256];
	int rc;

	if (!eq || eq == set)
		return bad_override(set, "write KEY=VALUE, as in optimizer.lr=1e-3", err);
	for (int depth = 1;; depth++) {
		size_t n = strcspn(word, ".=");
		struct lh_node *next;

		/* Whoever walks the tree calls itself once a level. */
		if (depth > DEPTH_MAX)
			return bad_override(set, "a job file is a few levels deep", err);
		if (word[n] == '=') {
			snprintf(key, sizeof(key), "%.*s", (int)n, word);
			break;
		}
		next = step_into(at, word, n);
		if (!next && at->kind == LH_NODE_MAP) {
			snprintf(key, sizeof(key), "%.*s", (int)n, word);
			next = node_new(LH_NODE_MAP, 0, set);
			lh_node_put_take(at, key, next);
		}
		if (!next)
			return bad_override(set, "phases are named or numbered from 0", err);
		at = next;
		word += n + 1;
	}
	if (at->kind == LH_NODE_LIST)
		return bad_override(set, "name a key of one phase", err);
	if (at->kind != LH_NODE_MAP)
		return bad_override(set, "that is a value, not a section", err);
	rc = parse_override(&value, set, eq + 1, err);
	if (rc)
		return rc;
	lh_node_put_take(at, key, value);
	return 0;
}
