/* rule_exec.c: see rule_exec.h.
 *
 * No shell: the file is executed as it is. The directory and the file belong to
 * lhd's user or root and nobody else may write them, so nobody else decides what
 * runs as lhd's user. */
#include "jobs/rule_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/jobs_int.h"
#include "jobs/rule.h"

struct lh_rule_exec {
	struct lh_jobs *jobs;
	lh_rule_exec_done done; /* NULL: abandoned, or told */
	void *arg;
	uv_process_t process;
	uv_pipe_t in;
	uv_timer_t timer;
	uv_write_t write;
	char *input;
	bool timed_out;
	int handles;
};

/* ---- may it be run --------------------------------------------------------- */

static int refuse(struct lh_err *err, const char *path, const char *why)
{
	lh_err_set(err, LH_EDENIED, "'%s' %s", path, why);
	return lh_err_hint(err, "a script belongs to lhd's user or root, who alone may write "
				"it and its directory, and is executable");
}

static bool is_ours(const struct stat *st)
{
	return (st->st_uid == geteuid() || !st->st_uid) && !(st->st_mode & 022);
}

static int check_file(const char *dir, const char *path, struct lh_err *err)
{
	struct stat st;

	if (lstat(dir, &st))
		return refuse(err, dir, strerror(errno));
	if (!S_ISDIR(st.st_mode) || !is_ours(&st))
		return refuse(err, dir, "is no directory of lhd's alone");
	if (lstat(path, &st))
		return refuse(err, path, strerror(errno));
	if (!S_ISREG(st.st_mode) || !is_ours(&st) || !(st.st_mode & 0100))
		return refuse(err, path, "is no script of lhd's alone");
	return 0;
}

/* ---- its end --------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
	struct lh_rule_exec *x = handle->data;
	struct lh_jobs *jobs = x->jobs;

	jobs->handles--;
	if (!--x->handles) {
		free(x->input);
		free(x);
	}
	lh_jobs_settle(jobs);
}

static void close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, on_closed);
}

static void kill_group(struct lh_rule_exec *x)
{
	if (x->process.pid > 0 && !uv_is_closing((uv_handle_t *)&x->process))
		kill(-x->process.pid, SIGKILL);
}

static void on_exit_of(uv_process_t *process, int64_t code, int sig)
{
	struct lh_rule_exec *x = process->data;
	lh_rule_exec_done done = x->done;
	char text[96];

	/* What it started and left behind goes with it. */
	kill(-process->pid, SIGKILL);
	if (x->timed_out)
		snprintf(text, sizeof(text), "killed after %d s", LH_RULE_EXEC_MS / 1000);
	else if (sig)
		snprintf(text, sizeof(text), "ended by signal %d", sig);
	else
		snprintf(text, sizeof(text), "ended with status %" PRId64, code);
	x->done = NULL;
	close_handle((uv_handle_t *)&x->process);
	close_handle((uv_handle_t *)&x->in);
	close_handle((uv_handle_t *)&x->timer);
	if (done)
		done(x->arg, !code && !sig, text);
}

static void on_time(uv_timer_t *timer)
{
	struct lh_rule_exec *x = timer->data;

	x->timed_out = true;
	kill_group(x);
}

void lh_rule_exec_abandon(struct lh_rule_exec *x)
{
	x->done = NULL;
	kill_group(x);
	close_handle((uv_handle_t *)&x->process);
	close_handle((uv_handle_t *)&x->in);
	close_handle((uv_handle_t *)&x->timer);
}

/* ---- its start ------------------------------------------------------------- */

static void on_written(uv_write_t *req, int status)
{
	struct lh_rule_exec *x = req->handle->data;

	(void)status; /* one that reads nothing is none the worse */
	close_handle((uv_handle_t *)&x->in);
}

static void give_input(struct lh_rule_exec *x, const json_t *input)
{
	char *line = json_dumps(input, JSON_COMPACT);
	uv_buf_t buf;

	x->input = lh_asprintf("%s\n", line);
	free(line);
	buf = uv_buf_init(x->input, (unsigned)strlen(x->input));
	if (uv_write(&x->write, (uv_stream_t *)&x->in, &buf, 1, on_written))
		close_handle((uv_handle_t *)&x->in);
}

static int spawn(struct lh_rule_exec *x, const char *dir, char *path)
{
	char *log = lh_asprintf("%s/hooks.log", x->jobs->state_dir);
	char *state = lh_asprintf("LIGHTHOUSE_STATE=%s", x->jobs->state_dir);
	char *env[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", state, NULL };
	char *args[] = { path, NULL };
	int fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600), rc;
	uv_stdio_container_t io[3] = {
		{ .flags = UV_CREATE_PIPE | UV_READABLE_PIPE,
		  .data.stream = (uv_stream_t *)&x->in },
		{ .flags = fd < 0 ? UV_IGNORE : UV_INHERIT_FD, .data.fd = fd },
		{ .flags = fd < 0 ? UV_IGNORE : UV_INHERIT_FD, .data.fd = fd },
	};
	uv_process_options_t o = { .file = path, .args = args, .env = env, .cwd = dir,
				   .flags = UV_PROCESS_DETACHED, .exit_cb = on_exit_of,
				   .stdio = io, .stdio_count = 3 };

	uv_pipe_init(x->jobs->loop, &x->in, 0);
	uv_timer_init(x->jobs->loop, &x->timer);
	x->in.data = x->timer.data = x->process.data = x;
	rc = uv_spawn(x->jobs->loop, &x->process, &o);
	x->handles = 3;
	x->jobs->handles += 3;
	if (fd >= 0)
		close(fd);
	free(state);
	free(log);
	return rc;
}

struct lh_rule_exec *lh_rule_exec_start(struct lh_jobs *jobs, const char *file,
					const json_t *input, lh_rule_exec_done done,
					void *arg, struct lh_err *err)
{
	char *dir = lh_asprintf("%s/%s", jobs->state_dir, "hooks");
	char *path = lh_asprintf("%s/%s", dir, file);
	struct lh_rule_exec *x = NULL;
	int rc = check_file(dir, path, err);

	if (!rc) {
		x = lh_calloc(1, sizeof(*x));
		x->jobs = jobs;
		rc = spawn(x, dir, path);
		if (rc) {
			refuse(err, path, uv_strerror(rc));
			lh_rule_exec_abandon(x);
			x = NULL;
		} else {
			x->done = done;
			x->arg = arg;
			uv_timer_start(&x->timer, on_time, LH_RULE_EXEC_MS, 0);
			give_input(x, input);
		}
	}
	free(path);
	free(dir);
	return x;
}
