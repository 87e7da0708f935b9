/* errors.c: errors.json -> lighthouse/err_codes.h and err_codes.c.
 *
 * Codes are -1, -2, ... in the order of the file. "transient": true marks those
 * that another process, some time later, may not meet. */
#include "gen.h"

static const char *text(json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	if (!s)
		gen_die("errors.json: a row lacks '%s'", key);
	return s;
}

static void header(json_t *rows, const char *out)
{
	FILE *f = gen_open(out, "lighthouse/err_codes.h");
	size_t i;
	json_t *row;

	fprintf(f, "#ifndef LIGHTHOUSE_ERR_CODES_H\n"
		   "#define LIGHTHOUSE_ERR_CODES_H\n\n"
		   "enum lh_code {\n\tLH_OK = 0,\n");
	json_array_foreach (rows, i, row)
		fprintf(f, "\t%s = -%zu, /* %s */\n", text(row, "name"), i + 1,
			text(row, "meaning"));
	fprintf(f, "};\n\n#endif\n");
	gen_close(f);
}

void gen_errors(const char *schema, const char *out)
{
	json_t *rows = gen_load(schema, "errors.json"), *row;
	FILE *f;
	size_t i;

	header(rows, out);
	f = gen_open(out, "err_codes.c");
	fprintf(f, "#include \"lighthouse/err.h\"\n\n#include <string.h>\n\n"
		   "static const struct {\n\tconst char *name;\n\tint rpc;\n"
		   "\tbool transient;\n\tconst char *meaning;\n} codes[] = {\n"
		   "\t{ \"LH_OK\", 0, false, \"no error\" },\n");
	json_array_foreach (rows, i, row) {
		fprintf(f, "\t{ \"%s\", %lld, %s, ", text(row, "name"),
			(long long)json_integer_value(json_object_get(row, "rpc")),
			json_is_true(json_object_get(row, "transient")) ? "true" : "false");
		gen_string(f, text(row, "meaning"));
		fprintf(f, " },\n");
	}
	fprintf(f, "};\n\n#define COUNT ((int)(sizeof(codes) / sizeof(codes[0])))\n\n"
		   "static int slot(int code)\n{\n"
		   "\tif (code > 0 || -code >= COUNT)\n"
		   "\t\tLH_BUG(\"no such error code: %%d\", code);\n"
		   "\treturn -code;\n}\n\n"
		   "const char *lh_err_name(int code)\n"
		   "{\n\treturn codes[slot(code)].name;\n}\n\n"
		   "int lh_err_rpc_code(int code)\n"
		   "{\n\treturn codes[slot(code)].rpc;\n}\n\n"
		   "bool lh_err_is_transient(int code)\n"
		   "{\n\treturn codes[slot(code)].transient;\n}\n\n"
		   "const char *lh_err_meaning(int code)\n"
		   "{\n\treturn codes[slot(code)].meaning;\n}\n\n"
		   "int lh_err_from_name(const char *name)\n{\n"
		   "\tfor (int i = 0; i < COUNT; i++)\n"
		   "\t\tif (!strcmp(codes[i].name, name))\n"
		   "\t\t\treturn -i;\n\treturn 0;\n}\n");
	gen_close(f);
	json_decref(rows);
}
