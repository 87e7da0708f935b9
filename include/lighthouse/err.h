/* err.h: how a failure is reported, in every program of the tree.
 *
 * Three failures, three tools:
 *   - an operational error (bad input, full disk, lost peer) returns a negative
 *     LH_E* code and writes one sentence, and a hint where there is a remedy,
 *     into the caller's struct lh_err;
 *   - a broken invariant calls LH_BUG: place, backtrace, abort. Always on;
 *   - no memory: the lh_alloc family aborts with a message. Never returns NULL.
 *
 * Sentences: lower case, no full stop, what failed first, subjects in 'quotes'.
 * The codes, their names and JSON-RPC numbers are generated from
 * schema/errors.json. Thread-safe: an lh_err belongs to its caller.
 */
#ifndef LIGHTHOUSE_ERR_H
#define LIGHTHOUSE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#include "lighthouse/err_codes.h" /* generated: enum LH_OK = 0, LH_E* < 0 */

struct lh_err {
	int code;       /* 0 or a negative LH_E* */
	char text[512]; /* one sentence, may hold hostile bytes of the input */
	char hint[256]; /* the remedy, or "" */
};

#define LH_ERR_INIT { 0, "", "" }

/* Fills `err` (NULL is allowed) and clears its hint. Returns `code`, so that
 * callers can write `return lh_err_set(err, LH_EIO, "...")`. */
int lh_err_set(struct lh_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Adds the remedy to an error that is already set. Returns err->code
 * (LH_EINTERNAL when err is NULL). */
int lh_err_hint(struct lh_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the sentence: who was doing what. Returns err->code. */
int lh_err_prefix(struct lh_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Name ("LH_EINVAL"), JSON-RPC error number, and the general meaning of a
 * code. An unknown code is a bug of the caller. Generated. */
const char *lh_err_name(int code);
int lh_err_rpc_code(int code);
const char *lh_err_meaning(int code);
/* Whether another process, some time later, may not meet it: a device or a disk
 * that failed, somebody who was there first. A worker that ends with such a code
 * counts as lost; with any other its job has failed. */
bool lh_err_is_transient(int code);
/* The code of a name, or 0. */
int lh_err_from_name(const char *name);

void lh_bug(const char *file, int line, const char *func, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 4, 5)));

#define LH_BUG(...) lh_bug(__FILE__, __LINE__, __func__, __VA_ARGS__)
#define LH_ASSERT(cond)                                          \
	do {                                                     \
		if (!(cond))                                     \
			LH_BUG("assertion failed: %s", #cond);   \
	} while (0)

/* Heap memory that is never NULL; `bytes` of 0 gives a valid pointer.
 * Free with free(). */
void *lh_alloc(size_t bytes);
void *lh_calloc(size_t count, size_t bytes); /* zeroed, overflow aborts */
void *lh_realloc(void *p, size_t bytes);
char *lh_strdup(const char *s);
char *lh_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
