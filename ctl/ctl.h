/* ctl.h: what the subcommands of lhctl share: options, the daemon, printing.
 *
 * A subcommand is one file with one `const struct ctl_command`; main.c lists
 * them. Answers go to stdout, chatter and errors to stderr. lhctl holds no state
 * and no training code.
 */
#ifndef LIGHTHOUSE_CTL_H
#define LIGHTHOUSE_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"

/* Exit codes, the same for every subcommand. */
enum ctl_exit { CTL_DONE = 0, CTL_REFUSED = 1, CTL_USAGE = 2, CTL_UNREACHABLE = 3,
		CTL_TIMEOUT = 4, CTL_JOB_ENDED = 5 };

struct ctl_option {
	const char *name;   /* long, without "--"; NULL ends the table */
	char letter;        /* or 0 */
	const char *value;  /* what its value is called; NULL: a flag */
	bool repeats;
	const char *doc;
};

/* Rows that mean the same in every table they are in. */
#define CTL_OPTION_JSON { "json", 0, NULL, false, "the daemon's answer, as data" }
#define CTL_OPTION_MESSAGE { "message", 'm', "WHY", false, "kept in the journal" }
#define CTL_OPTION_NO_WAIT(what) { "no-wait", 0, NULL, false, "do not wait " what }
#define CTL_OPTION_REQUEST_ID                                                  \
	{ "request-id", 0, "UUID", false, "repeating a request with its id is harmless" }

struct ctl {
	const struct ctl_command *command;
	const char *state;  /* state directory; NULL: the default */
	const char **args;  /* operands */
	int arg_count;
	const char *values[64]; /* of options, in the order of the table */
	const char **repeated; /* values of the option that repeats */
	int repeated_count;
};

struct ctl_command {
	const char *name, *operands, *summary, *examples;
	int min_args, max_args; /* max -1: any number */
	const struct ctl_option *options;
	int (*run)(struct ctl *c); /* an enum ctl_exit */
};

/* ---- options.c: NULL, or 0, when not given. A name that is not in the table is
 * a bug. Numbers are checked; a bad one prints usage and exits 2. */
const char *ctl_opt(const struct ctl *c, const char *name);
int64_t ctl_opt_int(const struct ctl *c, const char *name, int64_t absent, int64_t min,
		    int64_t max);
double ctl_opt_number(const struct ctl *c, const char *name, double absent, double min,
		      double max);
/* Fills c from argv after the subcommand; CTL_DONE, or the code to exit with. -1:
 * help was printed. */
int ctl_parse(struct ctl *c, int argc, char **argv);
void ctl_print_help(const struct ctl_command *command);
/* Prints to stderr and returns CTL_USAGE. */
int ctl_usage(const struct ctl_command *command, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Text of the command line as JSON (new reference), never NULL: what is not UTF-8
 * exits 2, since JSON would drop it. `what` names it: "the message". */
json_t *ctl_text(const struct ctl *c, const char *what, const char *text);
/* Where relative paths of a job file start: its directory, absolute; heap. "/" for a
 * file that has none, as a pipe. */
char *ctl_directory_of(const char *path);
/* The directory of this lhctl, where the other programs lie too; heap. */
char *ctl_bin_dir(void);
/* Exits 2 unless `state` is the name of a job's state; NULL is fine. */
void ctl_check_state(const struct ctl *c, const char *state);

/* ---- client.c: one connection, blocking. */
struct ctl_client;
typedef void (*ctl_note)(void *arg, const char *method, json_t *params);

/* NULL after printing why; exit with CTL_UNREACHABLE. */
struct ctl_client *ctl_connect(const struct ctl *c);
/* The same without printing: NULL and *err. */
struct ctl_client *ctl_try_connect(const struct ctl *c, struct lh_err *err);
void ctl_disconnect(struct ctl_client *k); /* NULL is allowed */
/* Where the daemon would be; heap, or NULL and *err. */
char *ctl_state_dir(const struct ctl *c, struct lh_err *err);
void ctl_on_note(struct ctl_client *k, ctl_note note, void *arg);
/* From now on calls and listening end with LH_ETIMEOUT once timeout_s have
 * passed, whatever comes; negative: no limit. A call has 2 s all the same, so
 * that a timeout of 0 still asks. */
void ctl_deadline(struct ctl_client *k, double timeout_s);
/* Takes `params`. The result (new reference), or NULL and *err: the daemon's
 * refusal, LH_EUNREACHABLE, LH_EPROTO for what is no answer, LH_ETIMEOUT after the
 * deadline or when a signal came. Notifications that come meanwhile go to note. */
json_t *ctl_call(struct ctl_client *k, const char *method, json_t *params,
		 struct lh_err *err);
/* One call on a connection of its own, about the job that the first operand names
 * if there is one. Takes `params`. NULL after printing why; *rc is the code to exit
 * with. */
json_t *ctl_ask(const struct ctl *c, const char *method, json_t *params, int *rc);
/* Waits for notifications, timeout_ms at most (-1: until the deadline, if there is
 * one). 0, LH_ETIMEOUT (also when a signal came), LH_EUNREACHABLE or LH_EPROTO. */
int ctl_listen(struct ctl_client *k, int timeout_ms, struct lh_err *err);
/* Listening also ends, with LH_ETIMEOUT, when `fd` can be read; -1: no more. */
void ctl_wake_on(struct ctl_client *k, int fd);
/* Waits until the daemon has closed the connection and, if it is the one that owns
 * the state directory, its process has ended. */
void ctl_await_end(const struct ctl *c, struct ctl_client *k);
/* Waits until the daemon has closed the connection, which is freed, and connects to
 * the one that comes after it. NULL after printing why: none came for a minute. */
struct ctl_client *ctl_await_next(const struct ctl *c, struct ctl_client *old);
/* Prints "error: ..." and "hint: ..."; the exit code that fits. */
int ctl_fail(const struct lh_err *err);
/* Number of the job an operand names: a number, or the newest of that name.
 * CTL_DONE, or the code to exit with after printing why. */
int ctl_job(struct ctl_client *k, const char *operand, int64_t *id);
/* For the journal: {job, program, request_id, message}. */
json_t *ctl_steer_params(const struct ctl *c, int64_t job);

/* ---- since.c: where a reader begins: behind a row, or at a time; when a job is to. */
struct ctl_since {
	bool given;
	int64_t after_id; /* 0: not by row */
	int64_t ms;       /* Unix milliseconds; 0: not by time */
};
/* --since: a number is a row; '90s', '10m', '2h', '3d' and '1w' are so long ago;
 * '2026-01-31', '2026-01-31 08:00' and '2026-01-31T08:00:00' local times, with Z or
 * +01:00 at the end those of that zone. What is none of it prints usage and exits
 * 2. */
struct ctl_since ctl_opt_since(const struct ctl *c);
/* --at, Unix milliseconds, 0 without: '08:00' is the next one, '2h' in so long, else a
 * time as above. One that is none, or past, exits 2. */
int64_t ctl_opt_at_ms(const struct ctl *c);

/* ---- pages.c: lists of any length, read page by page, printed as they come. */
struct ctl_pages {
	const char *method, *list;  /* "job.steps", "steps": where its rows are */
	json_t *params;             /* the daemon's, but for the limit */
	int64_t limit;              /* rows at most; -1: all */
	/* Goes on behind `last` in params. */
	void (*go_on)(json_t *params, const json_t *last);
	void (*print)(void *arg, const json_t *row);
	void (*flush)(void *arg);   /* a page is complete */
	void *arg;
};
/* CTL_DONE, or the code to exit with after printing why. *more: the limit was
 * reached before the end. With --json, which the command must have, print and flush
 * are not called, and what comes out is one result of the method. */
int ctl_pages_print(const struct ctl *c, struct ctl_client *k, struct ctl_pages *p,
		    bool *more);

/* For go_on, of job.steps; of job.evaluations and job.looks. */
void ctl_behind_step(json_t *params, const json_t *last);
void ctl_behind_evaluation(json_t *params, const json_t *last);

/* ---- print.c: tables and numbers. Foreign text is escaped. */
struct ctl_table;
struct ctl_table *ctl_table_new(int columns, const char *const *heads);
void ctl_table_hide_heads(struct ctl_table *t);
void ctl_table_add(struct ctl_table *t, const char *cell); /* row by row */
void ctl_table_addf(struct ctl_table *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Prints the rows that were added, aligned with heads (once) on a terminal,
 * tab-separated without on a pipe. */
void ctl_table_flush(struct ctl_table *t);
void ctl_table_free(struct ctl_table *t);
void ctl_table_print_take(struct ctl_table *t); /* flushes and frees */
/* Columns of a terminal that text takes, and bytes of it that fit into so many. */
int ctl_width(const char *s);
size_t ctl_fit(const char *s, int columns);
/* The values of an object, or its keys, as a line of CSV; null is empty. */
void ctl_csv_row(const json_t *row, bool head);
/* Prints as JSON on stdout; takes it. A terminal gets ASCII alone: some of what
 * JSON leaves as it is steers one. Returns CTL_DONE. */
int ctl_print_json_take(json_t *value);
/* The same on one line, and without its end. */
void ctl_print_json_line(const json_t *value);
void ctl_print_json_part(const json_t *value);
/* Text that may hold anything: a terminal gets no control bytes but newline and tab; a
 * pipe gets it as it is. */
void ctl_put_text(const char *text);
void ctl_duration(char out[32], double seconds); /* "1h 02m", "41 s" */
void ctl_time(char out[32], int64_t ms);         /* local, to the second */
int64_t ctl_int(const json_t *o, const char *key);
double ctl_real(const json_t *o, const char *key); /* NaN when null */
const char *ctl_str(const json_t *o, const char *key); /* "" when absent */
/* The same, safe to print; one of four buffers, used in turn. */
const char *ctl_safe(const json_t *o, const char *key);
bool ctl_has(const json_t *o, const char *key);  /* there and not null */
bool ctl_has_ended(const json_t *job);           /* DONE, FAILED, CANCELLED */

#endif
