/* err.c: errors as values, bugs as aborts, memory that is never NULL. */
#include "lighthouse/err.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"

int lh_err_set(struct lh_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	err->hint[0] = '\0';
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

int lh_err_hint(struct lh_err *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return LH_EINTERNAL;
	va_start(ap, fmt);
	vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
	va_end(ap);
	return err->code;
}

int lh_err_prefix(struct lh_err *err, const char *fmt, ...)
{
	char head[sizeof(err->text)], text[sizeof(err->text)];
	va_list ap;
	size_t n;

	if (!err)
		return LH_EINTERNAL;
	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	memcpy(text, err->text, sizeof(text));
	n = strlen(head);
	if (n + 3 < sizeof(head))
		memcpy(head + n, ": ", 3);
	n = strlen(head);
	memcpy(err->text, head, n + 1);
	strncat(err->text, text, sizeof(err->text) - n - 1);
	return err->code;
}

void lh_bug(const char *file, int line, const char *func, const char *fmt, ...)
{
	void *frames[64];
	va_list ap;
	int n;

	fprintf(stderr, "BUG at %s:%d in %s: ", file, line, func);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	n = backtrace(frames, 64);
	backtrace_symbols_fd(frames, n, STDERR_FILENO);
	abort();
}

static _Noreturn void out_of_memory(size_t bytes)
{
	fprintf(stderr, "out of memory: %zu bytes could not be allocated\n", bytes);
	abort();
}

void *lh_alloc(size_t bytes)
{
	void *p = LH_FAILS("alloc") ? NULL : malloc(bytes ? bytes : 1);

	if (!p)
		out_of_memory(bytes);
	return p;
}

void *lh_calloc(size_t count, size_t bytes)
{
	void *p = LH_FAILS("alloc") ? NULL : calloc(count ? count : 1, bytes ? bytes : 1);

	if (!p)
		out_of_memory(bytes && count > SIZE_MAX / bytes ? SIZE_MAX
								: count * bytes);
	return p;
}

void *lh_realloc(void *p, size_t bytes)
{
	void *q = LH_FAILS("alloc") ? NULL : realloc(p, bytes ? bytes : 1);

	if (!q)
		out_of_memory(bytes);
	return q;
}

char *lh_strdup(const char *s)
{
	size_t n = strlen(s) + 1;

	return memcpy(lh_alloc(n), s, n);
}

char *lh_asprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory(0);
	return s;
}
