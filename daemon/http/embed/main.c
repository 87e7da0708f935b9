/* main.c: `embed DIR OUT.c`: the files under DIR as the table of http/asset.h.
 *
 * Runs in the build. The same files give the same bytes: sorted by path, packed by
 * `gzip -9n`, the ETag a hash of the content. */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { FILES_MAX = 512, FILE_MAX_BYTES = 16 << 20 };

struct file {
	char *path; /* below DIR, with its slash */
	unsigned char *data, *gzip;
	size_t bytes, gzip_bytes;
};

static struct file files[FILES_MAX];
static int count;

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("embed: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static char *join(const char *a, const char *b, const char *c)
{
	size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
	char *s = malloc(n);

	if (!s)
		die("no memory");
	snprintf(s, n, "%s%s%s", a, b, c);
	return s;
}

static unsigned char *slurp(FILE *f, const char *name, size_t *bytes)
{
	unsigned char *data = malloc(FILE_MAX_BYTES);

	if (!f || !data)
		die("cannot read '%s': %s", name, strerror(errno));
	*bytes = fread(data, 1, FILE_MAX_BYTES, f);
	if (ferror(f) || *bytes == FILE_MAX_BYTES)
		die("'%s' cannot be read, or is too large", name);
	return data;
}

/* ---- reading --------------------------------------------------------------- */

static const char *type_of(const char *path)
{
	static const char *const types[][2] = {
		{ ".html", "text/html; charset=utf-8" }, { ".js", "text/javascript; charset=utf-8" },
		{ ".css", "text/css; charset=utf-8" },   { ".json", "application/json" },
		{ ".svg", "image/svg+xml" },             { ".png", "image/png" },
		{ ".ico", "image/x-icon" },              { ".woff2", "font/woff2" },
		{ ".webmanifest", "application/manifest+json" }, { ".txt", "text/plain; charset=utf-8" },
	};
	const char *dot = strrchr(path, '.');

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(*types); i++)
		if (!strcmp(types[i][0], dot))
			return types[i][1];
	die("'%s': no type is known for such a name", path);
	return NULL;
}

/* Kept where it is worth it. */
static void pack(struct file *f, const char *name)
{
	char *command = join("gzip -9nc '", name, "'");
	FILE *pipe = popen(command, "r");

	f->gzip = slurp(pipe, command, &f->gzip_bytes);
	if (pclose(pipe))
		die("'%s' failed", command);
	if (f->gzip_bytes > f->bytes - f->bytes / 8)
		f->gzip_bytes = 0;
	free(command);
}

/* They stand in C strings, in a shell's quotes and in addresses as they are. */
static const char name_chars[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./";

static void add(const char *root, const char *path)
{
	char *name = join(root, path, "");
	struct file *f = &files[count];
	FILE *in = fopen(name, "rb");

	if (++count == FILES_MAX)
		die("more than %d files", FILES_MAX);
	if (strspn(path, name_chars) != strlen(path) || strchr(name, '\''))
		die("'%s' has characters that a name of the page may not have", name);
	f->path = join(path, "", "");
	f->data = slurp(in, name, &f->bytes);
	fclose(in);
	pack(f, name);
	free(name);
}

static void walk(const char *root, const char *below)
{
	char *dir = join(root, below, "/");
	DIR *d = opendir(dir);
	struct dirent *e;
	struct stat st;

	if (!d)
		die("cannot read '%s': %s", dir, strerror(errno));
	while ((e = readdir(d))) {
		char *path = join(below, "/", e->d_name), *name = join(root, path, "");

		if (*e->d_name != '.' && !stat(name, &st)) {
			if (S_ISDIR(st.st_mode))
				walk(root, path);
			else
				add(root, path);
		}
		free(path);
		free(name);
	}
	closedir(d);
	free(dir);
}

/* ---- writing --------------------------------------------------------------- */

static const char *path_of(const struct file *f)
{
	return strcmp(f->path, "/index.html") ? f->path : "/";
}

static int compare(const void *a, const void *b)
{
	return strcmp(path_of(a), path_of(b));
}

static void put_bytes(FILE *out, const char *name, int i, const unsigned char *data, size_t n)
{
	fprintf(out, "static const unsigned char %s%d[] = {", name, i);
	for (size_t k = 0; k < n; k++)
		fprintf(out, "%s%u,", k % 24 ? "" : "\n", data[k]);
	fprintf(out, "%s};\n", n ? "\n" : "0");
}

static void put_entry(FILE *out, const struct file *f, int i)
{
	fprintf(out, "\t{ \"%s\", \"%s\", \"W/\\\"%016llx\\\"\", data%d, %zu, ", path_of(f),
		type_of(f->path), (unsigned long long)XXH64(f->data, f->bytes, 0), i, f->bytes);
	if (f->gzip_bytes)
		fprintf(out, "gzip%d, %zu },\n", i, f->gzip_bytes);
	else
		fprintf(out, "NULL, 0 },\n");
}

int main(int argc, char **argv)
{
	FILE *out;

	if (argc != 3)
		die("usage: embed DIR OUT.c");
	walk(argv[1], "");
	qsort(files, (size_t)count, sizeof(*files), compare);
	if (!count || strcmp(path_of(files), "/"))
		die("'%s' has no index.html", argv[1]);
	out = fopen(argv[2], "w");
	if (!out)
		die("cannot write '%s': %s", argv[2], strerror(errno));
	fprintf(out, "/* Generated by http/embed. */\n#include \"http/asset.h\"\n\n");
	for (int i = 0; i < count; i++) {
		put_bytes(out, "data", i, files[i].data, files[i].bytes);
		if (files[i].gzip_bytes)
			put_bytes(out, "gzip", i, files[i].gzip, files[i].gzip_bytes);
	}
	fprintf(out, "\nconst struct lh_asset lh_assets[] = {\n");
	for (int i = 0; i < count; i++)
		put_entry(out, &files[i], i);
	fprintf(out, "};\nconst int lh_asset_count = %d;\n", count);
	if (ferror(out) || fclose(out))
		die("cannot write '%s'", argv[2]);
	return 0;
}
