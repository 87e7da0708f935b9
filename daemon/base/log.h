/* log.h: one line a fact, on stderr, for people and for `journalctl`.
 *
 * "2026-01-31T12:00:00.123Z info  job 7: RUNNING -> PAUSED (asked by uid 1000)"
 * Control bytes in the text are escaped, so hostile names cannot forge lines
 * or move a terminal's cursor. Any thread.
 */
#ifndef LIGHTHOUSE_LOG_H
#define LIGHTHOUSE_LOG_H

#include "lighthouse/err.h"

enum lh_log_level { LH_LOG_DEBUG, LH_LOG_INFO, LH_LOG_WARN, LH_LOG_ERROR };

/* Lines below `level` are dropped; LH_LOG_INFO at the start. */
void lh_log_set_level(enum lh_log_level level);
void lh_log(enum lh_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define lh_debug(...) lh_log(LH_LOG_DEBUG, __VA_ARGS__)
#define lh_info(...) lh_log(LH_LOG_INFO, __VA_ARGS__)
#define lh_warn(...) lh_log(LH_LOG_WARN, __VA_ARGS__)
#define lh_error(...) lh_log(LH_LOG_ERROR, __VA_ARGS__)
/* "error: TEXT (hint: HINT)" with what was being done in front. */
void lh_log_err(enum lh_log_level level, const char *doing, const struct lh_err *err);

/* Writes `s` into `out` with bytes < 0x20, 0x7f and invalid UTF-8 as \xNN,
 * for terminals and logs. Always NUL-terminates. Returns out. */
char *lh_escape(char *out, size_t out_bytes, const char *s);

#endif
