/* lhd.h: lhd's insides for one input: a real store and manager of jobs on a scratch
 * state directory that is the same each time.
 *
 *   lhd_open(alive)   job 1 is queued, 2 done, 3 runs in attempt 1 (token "secret",
 *                     records to 20 stored), whose process is this one or is gone
 *   lhd_talk          over one of its sockets (lhd_dial), until it hangs up
 *   lhd_close         everything must come to an end
 *
 * Jobs stay in the queue, the programs of lhd are not there, and no timer of a kill
 * ever comes due. */
#ifndef LIGHTHOUSE_FUZZ_LHD_H
#define LIGHTHOUSE_FUZZ_LHD_H

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/frame.h"
#include "base/log.h"
#include "fuzz.h"
#include "jobs/jobs.h"
#include "lighthouse/proto.h"

enum { LHD_JOBS = 3, LHD_RUNNING = 3 };

#define LHD_SPEC                                                                    \
	"{\"name\":\"t\",\"restarts\":0,\"model\":{\"vocab\":257,\"dim\":16,"        \
	"\"layers\":1,\"heads\":1,\"ffn_dim\":16},\"data\":{\"train\":[\"/none.bin\"]," \
	"\"seq_len\":16},\"batch\":{\"sequences\":1},\"optimizer\":{\"lr\":0.1},"    \
	"\"phases\":[{\"name\":\"p0\",\"attention\":\"full\",\"until\":{\"steps\":30}}," \
	"{\"name\":\"p1\",\"attention\":\"full\",\"until\":{\"steps\":20}}]}"

static const char lhd_rows[] =
	"INSERT INTO jobs(id, name, spec_json, spec_yaml, state, reason, step, attempt,"
	" submitted_ms, started_ms, ended_ms) VALUES"
	" (1, 't', '" LHD_SPEC "', '', 'QUEUED', '', 0, 0, 1, NULL, NULL),"
	" (2, 't', '" LHD_SPEC "', '', 'DONE', 'all', 50, 1, 1, 2, 3),"
	" (3, 't', '" LHD_SPEC "', '', 'RUNNING', '', 20, 1, 1, 2, NULL);"
	"INSERT INTO attempts(job, attempt, token, first_step, last_seq, started_ms,"
	" ended_ms, outcome) VALUES (2, 1, 'x', 0, 1, 2, 3, 'done'),"
	" (3, 1, 'secret', 0, 20, 2, NULL, NULL);"
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)"
	" INSERT INTO steps SELECT 3, 1, i, 0, 5, 2.5, NULL, 1e-3, 16, 1.0, 16.0, 0 FROM n;"
	"INSERT INTO evaluations VALUES (3, 1, 1, 0, 0, 5, 'full', 'start', 5.5, 100, 2, 0,"
	" 'validation', 0.5);"
	"INSERT INTO checkpoints VALUES (3, 1, 2, 10, 6, '/c', 10, 1.5, 'interval');"
	"INSERT INTO events VALUES (1, 3, 1, 0, 5, 'job.phase', 'p0', '{\"phase\":0}');"
	"INSERT INTO commands(id, request_id, job, method, args_json, uid, pid, program,"
	" accepted_ms) VALUES (1, 'seen', 3, 'job.pause', '{}', 1, 2, 'lhctl', 5),"
	" (2, NULL, 3, 'job.switch', '{\"phase\":\"p1\"}', 1, 2, 'lhctl', 6);";

static struct {
	uv_loop_t loop;
	char state[256], db[280];
	char *template;      /* bytes of the database that each input begins with */
	size_t template_bytes;
	struct lh_store *store;
	struct lh_jobs *jobs;
	bool jobs_closed, store_closed;
	lh_event_sink sink;  /* for events, (optional) */
	void *sink_arg;
} lhd;

static inline void lhd_on_closed(void *arg)
{
	*(bool *)arg = true;
}

static inline void lhd_on_event(void *arg, const struct lh_event *ev)
{
	(void)arg;
	LH_ASSERT(json_is_object(ev->json));
	if (lhd.sink)
		lhd.sink(lhd.sink_arg, ev);
}

static inline void lhd_close_store(void)
{
	lhd.store_closed = false;
	lh_store_close(lhd.store, lhd_on_closed, &lhd.store_closed);
	uv_run(&lhd.loop, UV_RUN_DEFAULT);
	LH_ASSERT(lhd.store_closed && !uv_loop_alive(&lhd.loop));
}

/* ---- once ------------------------------------------------------------------ */

static inline void lhd_make_template(void)
{
	sqlite3 *db;

	LH_ASSERT(!lh_store_open(&lhd.store, &lhd.loop, lhd.db, NULL));
	lhd_close_store();
	LH_ASSERT(!sqlite3_open(lhd.db, &db));
	LH_ASSERT(!sqlite3_exec(db, lhd_rows, NULL, NULL, NULL));
	LH_ASSERT(!sqlite3_close(db));
	LH_ASSERT(!lh_fs_read(lhd.db, 16 << 20, &lhd.template, &lhd.template_bytes, NULL));
}

static inline void lhd_begin(void)
{
	if (lhd.template)
		return;
	signal(SIGPIPE, SIG_IGN);
	lh_log_set_level(LH_LOG_ERROR + 1);
	LH_ASSERT(!uv_loop_init(&lhd.loop));
	snprintf(lhd.state, sizeof(lhd.state), "%s/state", fuzz_dir());
	snprintf(lhd.db, sizeof(lhd.db), "%s/" LH_STATE_DB, lhd.state);
	LH_ASSERT(!lh_fs_mkdirs(lhd.state, NULL));
	lhd_make_template();
}

/* ---- for each input -------------------------------------------------------- */

/* The worker's directory; of the caller. */
static inline char *lhd_attempt_dir(void)
{
	return lh_asprintf("%s/" LH_STATE_JOBS "/%d/attempt-1", lhd.state, LHD_RUNNING);
}

static inline void lhd_write_pids(bool alive)
{
	char *dir = lhd_attempt_dir(), text[128];
	int pid = getpid();
	uint64_t start = alive ? lh_proc_start_time(pid) : 1; /* a pid that was given away */

	snprintf(text, sizeof(text), "{\"pid\": %d, \"start_time\": %llu}", pid,
		 (unsigned long long)start);
	LH_ASSERT(!lh_fs_mkdirs(dir, NULL));
	fuzz_write(dir, LH_ATTEMPT_PID, text, strlen(text));
	free(dir);
}

static inline void lhd_reopen(void)
{
	struct lh_jobs_config c = { .state_dir = lhd.state, .bin_dir = "/nowhere",
				    .stop_grace_ms = INT64_MAX, .kill_grace_ms = INT64_MAX,
				    .generation = 7, .proto = LH_PROTO_VERSION };
	struct lh_err err = LH_ERR_INIT;

	if (lh_store_open(&lhd.store, &lhd.loop, lhd.db, &err) ||
	    lh_jobs_open(&lhd.jobs, &lhd.loop, lhd.store, &c, lhd_on_event, NULL, &err))
		LH_BUG("%s", err.text);
}

/* What is left of the input before goes. */
static inline void lhd_reset(bool alive)
{
	lhd_begin();
	LH_ASSERT(!lh_fs_remove_tree(lhd.state, NULL));
	lhd_write_pids(alive);
	fuzz_write(lhd.state, LH_STATE_DB, lhd.template, lhd.template_bytes);
}

static inline void lhd_open(bool alive)
{
	lhd_reset(alive);
	lhd_reopen();
}

static inline void lhd_close(void)
{
	lhd.jobs_closed = false;
	lh_jobs_close(lhd.jobs, lhd_on_closed, &lhd.jobs_closed);
	while (!lhd.jobs_closed)
		uv_run(&lhd.loop, UV_RUN_ONCE);
	lhd_close_store();
}

/* All that memory says of the jobs can be said. */
static inline void lhd_look(void)
{
	json_t *list = lh_jobs_list(lhd.jobs, NULL);

	LH_ASSERT(json_array_size(list) >= LHD_JOBS);
	json_decref(list);
	json_decref(lh_jobs_phases(lhd.jobs, LHD_RUNNING));
}

/* ---- a socket -------------------------------------------------------------- */

static inline int lhd_dial(const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/%s", lhd.state, name);
	LH_ASSERT(fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

/* Something happened to the socket or to lhd. */
static inline void lhd_wait(int fd, bool sending)
{
	struct pollfd p[2] = { { fd, POLLIN | (sending ? POLLOUT : 0), 0 },
			       { uv_backend_fd(&lhd.loop), POLLIN, 0 } };

	uv_run(&lhd.loop, UV_RUN_NOWAIT);
	poll(p, 2, uv_backend_timeout(&lhd.loop));
}

/* Every line that came is one object. False when lhd has hung up. */
static inline bool lhd_listen(int fd, struct lh_frame *f)
{
	char buf[65536], *line;
	ssize_t n = recv(fd, buf, sizeof(buf), 0);
	size_t len;

	if (n < 0 && errno == EAGAIN)
		return true;
	if (n <= 0)
		return false;
	lh_frame_push(f, buf, (size_t)n);
	while (lh_frame_next(f, &line, &len) > 0) {
		json_t *m = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);

		LH_ASSERT(json_is_object(m));
		json_decref(m);
	}
	return true;
}

/* Says all of it and ends its side; closes when lhd has ended the other. */
static inline void lhd_talk(int fd, const void *bytes, size_t n)
{
	const char *at = bytes;
	bool ended = false;
	struct lh_frame f;

	lh_frame_init(&f, 64u << 20);
	do {
		ssize_t sent = n ? send(fd, at, n, MSG_NOSIGNAL) : 0;

		if (sent > 0) {
			at += sent;
			n -= (size_t)sent;
		}
		if (sent < 0 && errno != EAGAIN)
			n = 0; /* it has hung up */
		if (!n && !ended) {
			shutdown(fd, SHUT_WR);
			ended = true;
		}
		lhd_wait(fd, n > 0);
	} while (lhd_listen(fd, &f));
	lh_frame_release(&f);
	close(fd);
}

#endif
