/* readme.c: README.md and rpc/METHOD.json -> OUT/README.md: what people wrote above
 * the mark, and below it the reference of the control protocol. `make reference`
 * puts it in place; a test compares the two. */
#include "gen.h"

#include <stdlib.h>
#include <string.h>

static const char mark[] = "<!-- Below: made from rpc/ and errors.json by `make reference`. -->\n";

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* Up to and with the mark. */
static void copy_head(FILE *f, const char *schema)
{
	char path[4096], line[4096];
	FILE *in;

	snprintf(path, sizeof(path), "%s/README.md", schema);
	in = fopen(path, "r");
	if (!in)
		gen_die("cannot read '%s'", path);
	do {
		if (!fgets(line, sizeof(line), in))
			gen_die("%s: lacks the line %s", path, mark);
		fputs(line, f);
	} while (strcmp(line, mark));
	fclose(in);
}

static void limits(FILE *f, json_t *p)
{
	json_t *min = json_object_get(p, "min"), *max = json_object_get(p, "max"), *v;
	json_t *bytes = json_object_get(p, "max_bytes"), *values = json_object_get(p, "enum");
	size_t i;

	if (min)
		fprintf(f, ", from %g", json_number_value(min));
	if (max)
		fprintf(f, ", to %g", json_number_value(max));
	if (bytes)
		fprintf(f, ", %lld bytes", (long long)json_integer_value(bytes));
	json_array_foreach (values, i, v)
		fprintf(f, "%s`%s`", i ? " or " : ", ", json_string_value(v));
}

static void params(FILE *f, json_t *all)
{
	const char *name;
	json_t *p;

	if (!json_object_size(all))
		return;
	fputs("\n| parameter | type | meaning |\n|---|---|---|\n", f);
	json_object_foreach (all, name, p) {
		fprintf(f, "| `%s`%s | %s", name,
			json_is_true(json_object_get(p, "required")) ? " (required)" : "",
			text(p, "type"));
		limits(f, p);
		fprintf(f, " | %s |\n", text(p, "doc"));
	}
}

static void result(FILE *f, json_t *schema, int depth)
{
	json_t *of = json_object_get(schema, "properties"), *v;
	json_t *items = json_object_get(schema, "items");
	const char *name;

	json_object_foreach (of, name, v) {
		fprintf(f, "%*s- `%s` (%s%s%s): %s\n", 2 * depth, "", name, text(v, "type"),
			json_is_true(json_object_get(v, "nullable")) ? " or null" : "",
			json_is_true(json_object_get(v, "optional")) ? ", optional" : "",
			text(v, "doc"));
		result(f, v, depth + 1);
	}
	if (items)
		result(f, items, depth);
}

static void method(FILE *f, json_t *m)
{
	json_t *errors = json_object_get(m, "errors"), *e;
	size_t i;

	fprintf(f, "\n### %s\n\n%s. Role `%s`, since %s.\n", text(m, "method"),
		text(m, "summary"), text(m, "role"), text(m, "since"));
	params(f, json_object_get(m, "params"));
	fputs("\nResult:\n\n", f);
	result(f, json_object_get(m, "result"), 0);
	if (json_array_size(errors)) {
		fputs("\nErrors:", f);
		json_array_foreach (errors, i, e)
			fprintf(f, "%s `%s`", i ? "," : "", json_string_value(e));
		fputs(".\n", f);
	}
}

void gen_readme(const char *schema, const char *out)
{
	json_t *errors = gen_load(schema, "errors.json"), *row;
	char dir[4096], path[4096], **files;
	FILE *f;
	size_t i;

	snprintf(path, sizeof(path), "%s/README.md", out);
	f = fopen(path, "w");
	if (!f)
		gen_die("cannot write '%s'", path);
	copy_head(f, schema);
	snprintf(dir, sizeof(dir), "%s/rpc", schema);
	files = gen_list(dir, ".json");
	fputs("\n## Methods\n", f);
	for (i = 0; files[i]; i++)
		method(f, gen_load(dir, files[i]));
	fputs("\n## Errors\n\n| name | code | meaning |\n|---|---|---|\n", f);
	json_array_foreach (errors, i, row)
		fprintf(f, "| `%s` | %lld | %s |\n", text(row, "name"),
			(long long)json_integer_value(json_object_get(row, "rpc")),
			text(row, "meaning"));
	gen_close(f);
	json_decref(errors);
}
