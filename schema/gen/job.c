/* job.c: job.json -> job_table.h and job_table.c: every key of a job file with
 * its type, range, default, meaning and place in struct lh_job. */
#include "gen.h"

#include <string.h>

static const char *text(json_t *row, const char *key, const char *fallback)
{
	const char *s = json_string_value(json_object_get(row, key));

	if (!s && !fallback)
		gen_die("job.json: a row lacks '%s'", key);
	return s ? s : fallback;
}

/* C expression of a bound; integers stay integers. */
static void bound(FILE *f, json_t *row, const char *key, const char *fallback)
{
	json_t *v = json_object_get(row, key);

	if (!v)
		fprintf(f, "%s", fallback);
	else if (json_is_integer(v))
		fprintf(f, "%lld", (long long)json_integer_value(v));
	else
		fprintf(f, "%.17g", json_real_value(v));
}

static const char *const types[][2] = {
	{ "string", "LH_KEY_STRING" },   { "integer", "LH_KEY_INTEGER" },
	{ "number", "LH_KEY_NUMBER" },   { "boolean", "LH_KEY_BOOLEAN" },
	{ "enum", "LH_KEY_ENUM" },       { "path", "LH_KEY_PATH" },
	{ "paths", "LH_KEY_PATHS" },     { "layers", "LH_KEY_LAYERS" },
	{ "sets", "LH_KEY_SETS" },
};

static const char *type_of(json_t *row)
{
	const char *name = text(row, "type", NULL);

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(types[i][0], name))
			return types[i][1];
	gen_die("job.json: unknown type '%s'", name);
}

static void row_of(FILE *f, json_t *row, const char *owner)
{
	const char *key = text(row, "key", NULL), *type = type_of(row);
	json_t *values = json_object_get(row, "values"), *v;
	size_t i;

	fprintf(f, "\t{ .path = \"%s\", .type = %s,\n", key, type);
	fprintf(f, "\t  .offset = offsetof(struct %s, %s),\n", owner,
		text(row, "field", key));
	fprintf(f, "\t  .bytes = sizeof(((struct %s *)0)->%s),\n", owner,
		text(row, "field", key));
	if (!strcmp(type, "LH_KEY_NUMBER")) {
		fprintf(f, "\t  .min_number = ");
		bound(f, row, "min", "-1e300");
		fprintf(f, ", .max_number = ");
		bound(f, row, "max", "1e300");
	} else {
		fprintf(f, "\t  .min = ");
		bound(f, row, "min", "INT64_MIN");
		fprintf(f, ", .max = ");
		bound(f, row, "max", "INT64_C(1) << 53");
	}
	fprintf(f, ",\n\t  .max_bytes = ");
	bound(f, row, "max_bytes", "4096");
	fprintf(f, ", .required = %s, .lighthouse = %s,\n\t  .fallback = ",
		json_is_true(json_object_get(row, "required")) ? "true" : "false",
		json_is_true(json_object_get(row, "lighthouse")) ? "true" : "false");
	gen_string(f, text(row, "default", ""));
	fprintf(f, ",\n\t  .names = { ");
	json_array_foreach (values, i, v)
		fprintf(f, "\"%s\", ", json_string_value(v));
	fprintf(f, "NULL },\n\t  .doc = ");
	gen_string(f, text(row, "doc", NULL));
	fprintf(f, " },\n");
}

static void table(FILE *f, json_t *rows, const char *name, const char *owner)
{
	json_t *row;
	size_t i;

	fprintf(f, "\nconst struct lh_key %s[] = {\n", name);
	json_array_foreach (rows, i, row)
		row_of(f, row, owner);
	fprintf(f, "};\nconst int %s_count = %zu;\n", name, json_array_size(rows));
}

static void presets(FILE *f, json_t *all)
{
	const char *name, *key;
	json_t *preset, *value;

	fprintf(f, "\nconst struct lh_preset lh_presets[] = {\n");
	json_object_foreach (all, name, preset)
		json_object_foreach (preset, key, value)
			fprintf(f, "\t{ \"%s\", \"model.%s\", \"%s\" },\n", name, key,
				json_string_value(value));
	fprintf(f, "\t{ NULL, NULL, NULL },\n};\n");
}

void gen_job(const char *schema, const char *out)
{
	json_t *all = gen_load(schema, "job.json");
	FILE *f = gen_open(out, "job_table.c");

	fprintf(f, "#include \"jobs/jobfile_int.h\"\n\n#include <stddef.h>\n"
		   "#include <stdint.h>\n");
	table(f, json_object_get(all, "job"), "lh_job_keys", "lh_job");
	table(f, json_object_get(all, "phase"), "lh_phase_keys", "lh_job_phase");
	table(f, json_object_get(all, "rule"), "lh_rule_keys", "lh_job_rule");
	presets(f, json_object_get(all, "presets"));
	gen_close(f);
	json_decref(all);
}
