/* host.c: see host.h. */
#include "devices/host.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"

enum { FILE_MAX_BYTES = 4 << 20 };

/* The text of PROC/NAME, "" if there is none; heap. */
static char *text_of(const struct lh_host *h, const char *name)
{
	char *path = lh_asprintf("%s/%s", h->proc, name), *text;
	size_t n;

	if (lh_fs_read(path, FILE_MAX_BYTES, &text, &n, NULL))
		text = lh_strdup("");
	free(path);
	return text;
}

/* What stands behind "KEY:" at the start of a line, or NULL. */
static const char *value_of(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, n)) {
			line += n + strspn(line + n, " \t");
			if (*line == ':')
				return line + 1 + strspn(line + 1, " \t");
		}
	}
	return NULL;
}

static int64_t kib_of(const char *text, const char *key)
{
	const char *v = value_of(text, key);

	return v ? strtoll(v, NULL, 10) * 1024 : -1;
}

static json_t *integer_or_null(int64_t v)
{
	return v < 0 ? json_null() : json_integer(v);
}

/* Read once: with many CPUs the kernel takes long to write that file. */
static json_t *name_of_cpu(struct lh_host *h)
{
	char *text = *h->cpu ? NULL : text_of(h, "cpuinfo");
	const char *v = text ? value_of(text, "model name") : NULL;
	json_t *name;

	if (v)
		snprintf(h->cpu, sizeof(h->cpu), "%.*s", (int)strcspn(v, "\n"), v);
	free(text);
	name = *h->cpu ? json_string(h->cpu) : NULL;
	return name ? name : json_null();
}

/* Since the reading before; ticks that wait for a disk are idle ones. */
static json_t *utilisation(struct lh_host *h)
{
	char *text = text_of(h, "stat");
	int64_t t[8] = { 0 }, total = 0, busy, of;
	double share = NAN;

	if (sscanf(text, "cpu %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
		   " %" SCNd64 " %" SCNd64 " %" SCNd64, &t[0], &t[1], &t[2], &t[3], &t[4],
		   &t[5], &t[6], &t[7]) >= 4) {
		for (int i = 0; i < 8; i++)
			total += t[i];
		busy = total - t[3] - t[4];
		of = total - h->total;
		if (h->total && of > 0)
			share = fmax(0, fmin(1, (double)(busy - h->busy) / (double)of));
		h->busy = busy;
		h->total = total;
	}
	free(text);
	return isnan(share) ? json_null() : json_real(share);
}

static json_t *load(const struct lh_host *h)
{
	char *text = text_of(h, "loadavg"), *end;
	double v = strtod(text, &end);
	json_t *one = end == text ? json_null() : json_real(v);

	free(text);
	return one;
}

static void put_memory(json_t *host, const struct lh_host *h)
{
	char *text = text_of(h, "meminfo");
	int64_t total = kib_of(text, "MemTotal"), free_bytes = kib_of(text, "MemAvailable");

	json_object_set_new(host, "memory_used_bytes",
			    integer_or_null(total < 0 || free_bytes < 0 ? -1 :
									  total - free_bytes));
	json_object_set_new(host, "memory_total_bytes", integer_or_null(total));
	free(text);
}

static void put_disk(json_t *host, const struct lh_host *h)
{
	struct statvfs v;
	bool known = !statvfs(h->state_dir, &v);

	json_object_set_new(host, "disk_free_bytes",
			    integer_or_null(known ? (int64_t)(v.f_bavail * v.f_frsize) : -1));
	json_object_set_new(host, "disk_total_bytes",
			    integer_or_null(known ? (int64_t)(v.f_blocks * v.f_frsize) : -1));
}

json_t *lh_host_read(struct lh_host *h)
{
	json_t *host = json_pack("{s:o, s:I, s:o, s:o}", "cpu", name_of_cpu(h), "cpus",
				 (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "utilisation",
				 utilisation(h), "load", load(h));

	put_memory(host, h);
	put_disk(host, h);
	return host;
}

int64_t lh_host_resident_bytes(const struct lh_host *h, int64_t pid)
{
	char name[48], *text;
	int64_t bytes;

	snprintf(name, sizeof(name), "%" PRId64 "/status", pid);
	text = text_of(h, name);
	bytes = kib_of(text, "VmRSS");
	free(text);
	return bytes;
}
