/* rpc.c: rpc/METHOD.json -> rpc_table.h and rpc_table.c.
 *
 * rpc_table.h declares a handler a method (job.switch: rpc_job_switch), the
 * table and its length; rpc_table.c fills the table with the names, ranges and
 * texts that control/rpc.c validates calls with. The form of the files is
 * schema/README.md; whatever does not follow it stops the build: a key nobody
 * knows, a type that does not exist, an error that errors.json lacks. */
#include "gen.h"

#include <stdlib.h>
#include <string.h>

static const char *const types[] = { "integer", "number", "string", "boolean",
				     "object",  "array",  NULL };
static const char *const type_names[] = { "INTEGER", "NUMBER", "STRING",
					  "BOOLEAN", "OBJECT", "ARRAY" };
static const char *const roles[] = { "read", "steer", "submit", NULL };
static const char *const role_names[] = { "READ", "STEER", "SUBMIT" };
static const char *const method_keys[] = { "method", "summary", "role",
					   "params", "result",  "errors",
					   "since",  NULL };
static const char *const param_keys[] = { "type", "required",  "min",
					  "max",  "max_bytes", "enum",
					  "doc",  "items",     NULL };
static const char *const result_keys[] = { "type",     "properties", "items",
					   "nullable", "optional",   "doc",
					   NULL };

static int find(const char *const *list, const char *s)
{
	int i;

	for (i = 0; s && list[i]; i++)
		if (!strcmp(list[i], s))
			return i;
	return -1;
}

static void check_keys(const char *where, json_t *object, const char *const *keys)
{
	const char *key;
	json_t *v;

	if (!json_is_object(object))
		gen_die("%s: expected an object", where);
	json_object_foreach (object, key, v)
		if (find(keys, key) < 0)
			gen_die("%s: unknown key '%s'", where, key);
}

static const char *text(const char *where, json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	if (!s || !*s)
		gen_die("%s: lacks '%s'", where, key);
	return s;
}

static int choice(const char *where, json_t *object, const char *key,
		  const char *const *list)
{
	const char *s = text(where, object, key);
	int i = find(list, s);

	if (i < 0)
		gen_die("%s: '%s' is not a %s", where, s, key);
	return i;
}

/* The schema of a result is for those who read it, tests first; here it only
 * has to be well-formed. */
static void check_result(const char *where, json_t *schema)
{
	json_t *properties = json_object_get(schema, "properties");
	json_t *items = json_object_get(schema, "items"), *v;
	const char *key;

	check_keys(where, schema, result_keys);
	choice(where, schema, "type", types);
	json_object_foreach (properties, key, v) {
		check_result(key, v);
		text(key, v, "doc");
	}
	if (items)
		check_result(where, items);
}

static void check_errors(const char *where, json_t *names, json_t *errors)
{
	json_t *name, *row;
	size_t i, j;

	if (!json_is_array(names))
		gen_die("%s: 'errors' must be an array", where);
	json_array_foreach (names, i, name) {
		json_array_foreach (errors, j, row)
			if (json_equal(json_object_get(row, "name"), name))
				break;
		if (j == json_array_size(errors))
			gen_die("%s: no error named '%s' in errors.json", where,
				json_is_string(name) ? json_string_value(name) :
						       "?");
	}
}

/* job.switch -> job_switch */
static const char *ident(const char *method)
{
	static char buf[128];
	size_t i;

	if (strlen(method) >= sizeof(buf))
		gen_die("method name too long: '%s'", method);
	for (i = 0; method[i]; i++)
		buf[i] = method[i] == '.' ? '_' : method[i];
	buf[i] = '\0';
	return buf;
}

static void param_limit(FILE *f, json_t *p, const char *key, const char *none)
{
	json_t *v = json_object_get(p, key);

	if (v)
		fprintf(f, ".%s = %.17g, ", key, json_number_value(v));
	else
		fprintf(f, ".%s = %s, ", key, none);
}

static void param(FILE *f, const char *where, const char *name, json_t *p)
{
	json_t *values = json_object_get(p, "enum"), *items, *v;
	size_t i;

	check_keys(where, p, param_keys);
	items = json_object_get(p, "items");
	fprintf(f, "\t{ .name = \"%s\", .type = LH_RPC_%s, ", name,
		type_names[choice(where, p, "type", types)]);
	if (items)
		fprintf(f, ".items = LH_RPC_%s, ",
			type_names[choice(where, items, "type", types)]);
	if (json_is_true(json_object_get(p, "required")))
		fprintf(f, ".required = true, ");
	param_limit(f, p, "min", "-HUGE_VAL");
	param_limit(f, p, "max", "HUGE_VAL");
	fprintf(f, ".max_bytes = %lld,\n\t  ",
		(long long)json_integer_value(json_object_get(p, "max_bytes")));
	if (values) {
		fprintf(f, ".values = (const char *const[]){ ");
		json_array_foreach (values, i, v) {
			gen_string(f, json_string_value(v));
			fprintf(f, ", ");
		}
		fprintf(f, "NULL },\n\t  ");
	}
	fprintf(f, ".doc = ");
	gen_string(f, text(where, p, "doc"));
	fprintf(f, " },\n");
}

static void params(FILE *f, const char *where, json_t *method)
{
	json_t *all = json_object_get(method, "params"), *p;
	const char *name;

	if (!json_is_object(all))
		gen_die("%s: 'params' must be an object", where);
	if (!json_object_size(all))
		return;
	fprintf(f, "static const struct lh_rpc_param %s_params[] = {\n",
		ident(text(where, method, "method")));
	json_object_foreach (all, name, p)
		param(f, where, name, p);
	fprintf(f, "};\n\n");
}

static void row(FILE *f, const char *where, json_t *method)
{
	const char *name = text(where, method, "method");
	size_t count = json_object_size(json_object_get(method, "params"));

	fprintf(f, "\t{ .name = \"%s\", .role = LH_ROLE_%s, ", name,
		role_names[choice(where, method, "role", roles)]);
	fprintf(f, ".handler = rpc_%s,\n\t  ", ident(name));
	if (count)
		fprintf(f, ".params = %s_params, .param_count = %zu,\n\t  ",
			ident(name), count);
	fprintf(f, ".summary = ");
	gen_string(f, text(where, method, "summary"));
	fprintf(f, " },\n");
}

static json_t *load(const char *dir, const char *file, json_t *errors)
{
	json_t *method = gen_load(dir, file);
	const char *name = text(file, method, "method");
	size_t n = strlen(name);

	check_keys(file, method, method_keys);
	if (strncmp(file, name, n) || strcmp(file + n, ".json"))
		gen_die("%s: 'method' must be as the file is named", file);
	text(file, method, "since");
	check_result(file, json_object_get(method, "result"));
	check_errors(file, json_object_get(method, "errors"), errors);
	return method;
}

void gen_rpc(const char *schema, const char *out)
{
	char dir[4096], **files;
	json_t *errors = gen_load(schema, "errors.json"), *method, *methods;
	FILE *h = gen_open(out, "rpc_table.h"), *c = gen_open(out, "rpc_table.c");
	size_t i;

	snprintf(dir, sizeof(dir), "%s/rpc", schema);
	files = gen_list(dir, ".json");
	methods = json_array();
	for (i = 0; files[i]; i++)
		json_array_append_new(methods, load(dir, files[i], errors));

	fprintf(h, "#ifndef LIGHTHOUSE_RPC_TABLE_H\n#define LIGHTHOUSE_RPC_TABLE_H\n\n"
		   "#include \"control/rpc.h\"\n\n"
		   "extern const struct lh_rpc_method lh_rpc_methods[];\n"
		   "extern const int lh_rpc_method_count;\n\n");
	fprintf(c, "#include \"rpc_table.h\"\n\n#include <math.h>\n\n");
	json_array_foreach (methods, i, method) {
		fprintf(h, "void rpc_%s(struct lh_call *call);\n",
			ident(text(files[i], method, "method")));
		params(c, files[i], method);
	}
	fprintf(h, "\n#endif\n");
	fprintf(c, "const struct lh_rpc_method lh_rpc_methods[] = {\n");
	json_array_foreach (methods, i, method)
		row(c, files[i], method);
	fprintf(c, "};\n\nconst int lh_rpc_method_count = %zu;\n", i);
	gen_close(h);
	gen_close(c);
	json_decref(methods);
	json_decref(errors);
}
