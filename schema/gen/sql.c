/* sql.c: store/NNNN_*.sql -> migrations.c, the texts in order.
 *
 *   const char *const lh_migrations[];  lh_migrations[0] is 0001
 *   const int lh_migration_count;
 * Numbers must be 0001, 0002, ... without a gap. */
#include "gen.h"

#include <stdlib.h>
#include <string.h>

static char *read_text(const char *dir, const char *name)
{
	char path[8192], *text;
	FILE *f;
	long n;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		gen_die("path too long: '%s/%s'", dir, name);
	f = fopen(path, "r");
	if (!f || fseek(f, 0, SEEK_END) || (n = ftell(f)) < 0)
		gen_die("cannot read '%s'", path);
	rewind(f);
	text = calloc(1, (size_t)n + 1);
	if (fread(text, 1, (size_t)n, f) != (size_t)n)
		gen_die("cannot read '%s'", path);
	fclose(f);
	return text;
}

void gen_sql(const char *schema, const char *out)
{
	char dir[4096], **names;
	FILE *f = gen_open(out, "migrations.c");
	int i;

	snprintf(dir, sizeof(dir), "%s/store", schema);
	names = gen_list(dir, ".sql");
	fprintf(f, "#include \"store/migrations.h\"\n\n"
		   "const char *const lh_migrations[] = {\n");
	for (i = 0; names[i]; i++) {
		char *text = read_text(dir, names[i]);

		if (atoi(names[i]) != i + 1)
			gen_die("store/%s: expected number %04d", names[i], i + 1);
		fputc('\t', f);
		gen_string(f, text);
		fprintf(f, ",\n");
		free(text);
	}
	fprintf(f, "};\n\nconst int lh_migration_count = %d;\n", i);
	gen_close(f);
}
