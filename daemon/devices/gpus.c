/* gpus.c: see gpus.h.
 *
 *   none ----> idle <----> asked       ask spawns, asks; an answer ends a question
 *    ^          |            |
 *    |          | LH_GPUS_IDLE_MS      its stdin is closed: it ends by itself
 *    |          v            | LH_GPUS_HANG_MS, or something that is no answer
 *    +------- ending <-------+         killed; none once it has ended
 *
 * Closing does not wait for its end: a process that its driver holds would hold us. */
#include "devices/gpus.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"

enum { ANSWER_MAX_BYTES = 1 << 20 };

enum state { NONE, IDLE, ASKED, ENDING };

struct lh_gpus {
	uv_loop_t *loop;
	char *program;
	enum state state;
	uv_process_t process;
	uv_pipe_t in, out;
	uv_timer_t patience;         /* of the one who asks */
	uv_timer_t limit;            /* of its answer, or of its idleness */
	struct lh_buf answer;
	char room[4096];             /* what is read lands here */
	uv_write_t question;
	char why[512];               /* why there is nothing, as last said */
	void (*done)(void *arg, json_t *gpus, const char *why); /* NULL: nobody asks */
	void *done_arg;
	int handles;                 /* not closed yet */
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void reply(struct lh_gpus *g, json_t *gpus)
{
	void (*done)(void *arg, json_t *gpus, const char *why) = g->done;

	uv_timer_stop(&g->patience);
	g->done = NULL;
	if (done)
		done(g->done_arg, gpus, gpus ? NULL : g->why);
}

/* ---- its end --------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
	struct lh_gpus *g = handle->data;

	if (--g->handles || !g->closing)
		return;
	g->closed(g->closed_arg);
	lh_buf_release(&g->answer);
	free(g->program);
	free(g);
}

static void close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, on_closed);
}

/* Its pipes are of no use any more; it ends by that, or is killed. */
static void let_go(struct lh_gpus *g, bool kill)
{
	g->state = ENDING;
	uv_timer_stop(&g->limit);
	if (kill)
		uv_process_kill(&g->process, SIGKILL);
	close_handle((uv_handle_t *)&g->in);
	close_handle((uv_handle_t *)&g->out);
}

static void on_process_closed(uv_handle_t *handle)
{
	struct lh_gpus *g = handle->data;

	g->state = NONE;
	on_closed(handle);
}

static void on_exit_of(uv_process_t *process, int64_t code, int sig)
{
	struct lh_gpus *g = process->data;

	if (g->state != ENDING) {
		snprintf(g->why, sizeof(g->why), sig ? "lhgpus was ended by signal %d" :
						       "lhgpus ended with status %d",
			 sig ? sig : (int)code);
		let_go(g, false);
	}
	if (!uv_is_closing((uv_handle_t *)process))
		uv_close((uv_handle_t *)process, on_process_closed);
	reply(g, NULL);
}

static void on_limit(uv_timer_t *timer)
{
	struct lh_gpus *g = timer->data;

	if (g->state == ASKED) {
		snprintf(g->why, sizeof(g->why), "the GPU's driver hangs");
		lh_warn("lhgpus has not answered for %d s, and is killed: %s",
			LH_GPUS_HANG_MS / 1000, g->why);
	} else {
		snprintf(g->why, sizeof(g->why), "lhgpus has just ended; ask again");
	}
	let_go(g, g->state == ASKED);
}

/* ---- an answer ------------------------------------------------------------- */

static void take_answer(struct lh_gpus *g, size_t bytes)
{
	json_t *answer = json_loadb(g->answer.data, bytes, 0, NULL);
	json_t *gpus = json_object_get(answer, "gpus");
	const char *why = json_string_value(json_object_get(answer, "why"));

	lh_buf_consume(&g->answer, g->answer.used_bytes);
	if (json_is_array(gpus) || why) {
		g->state = IDLE;
		uv_timer_start(&g->limit, on_limit, LH_GPUS_IDLE_MS, 0);
		snprintf(g->why, sizeof(g->why), "%s", why ? why : "");
	} else {
		snprintf(g->why, sizeof(g->why), "lhgpus is of another version");
		let_go(g, true);
	}
	reply(g, why ? NULL : gpus);
	json_decref(answer);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct lh_gpus *g = handle->data;

	(void)suggested;
	*buf = uv_buf_init(g->room, sizeof(g->room));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct lh_gpus *g = stream->data;
	char *end;

	if (n < 0 || g->state != ASKED)
		return; /* its end comes by on_exit_of */
	lh_buf_append(&g->answer, buf->base, (size_t)n);
	end = g->answer.used_bytes ? memchr(g->answer.data, '\n', g->answer.used_bytes) : NULL;
	if (end || g->answer.used_bytes > ANSWER_MAX_BYTES)
		take_answer(g, end ? (size_t)(end - g->answer.data) : 0);
}

/* ---- a question ------------------------------------------------------------ */

static int spawn(struct lh_gpus *g)
{
	char *args[] = { g->program, NULL };
	uv_stdio_container_t io[3] = {
		{ .flags = UV_CREATE_PIPE | UV_READABLE_PIPE,
		  .data.stream = (uv_stream_t *)&g->in },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE,
		  .data.stream = (uv_stream_t *)&g->out },
		{ .flags = UV_INHERIT_FD, .data.fd = 2 },
	};
	uv_process_options_t o = { .file = g->program, .args = args, .exit_cb = on_exit_of,
				   .stdio = io, .stdio_count = 3 };
	int rc;

	uv_pipe_init(g->loop, &g->in, 0);
	uv_pipe_init(g->loop, &g->out, 0);
	g->in.data = g->out.data = g->process.data = g;
	g->handles += 3;
	rc = uv_spawn(g->loop, &g->process, &o);
	if (rc) {
		snprintf(g->why, sizeof(g->why), "'%s' does not start: %s", g->program,
			 uv_strerror(rc));
		let_go(g, false);
		uv_close((uv_handle_t *)&g->process, on_process_closed);
		return rc;
	}
	g->state = IDLE;
	uv_read_start((uv_stream_t *)&g->out, on_room, on_read);
	return 0;
}

static void on_patience(uv_timer_t *timer)
{
	struct lh_gpus *g = timer->data;

	snprintf(g->why, sizeof(g->why), "the GPU's driver has not answered yet");
	reply(g, NULL);
}

static void send_question(struct lh_gpus *g)
{
	static char line[] = "\n";
	uv_buf_t buf = uv_buf_init(line, 1);

	g->state = ASKED;
	uv_timer_start(&g->limit, on_limit, LH_GPUS_HANG_MS, 0);
	/* One that cannot be written to has ended, and we are told of that. */
	uv_write(&g->question, (uv_stream_t *)&g->in, &buf, 1, NULL);
}

void lh_gpus_ask(struct lh_gpus *g, void (*done)(void *arg, json_t *gpus, const char *why),
		 void *arg)
{
	bool late = g->state == ASKED; /* it was asked before, and that one gave up */

	LH_ASSERT(!g->done && !g->closing);
	g->done = done;
	g->done_arg = arg;
	if (late || g->state == ENDING || (g->state == NONE && spawn(g))) {
		reply(g, NULL);
		return;
	}
	send_question(g);
	uv_timer_start(&g->patience, on_patience, LH_GPUS_ANSWER_MS, 0);
}

/* ---- open and closed ------------------------------------------------------- */

struct lh_gpus *lh_gpus_new(uv_loop_t *loop, const char *program)
{
	struct lh_gpus *g = lh_calloc(1, sizeof(*g));

	g->loop = loop;
	g->program = lh_strdup(program);
	uv_timer_init(loop, &g->patience);
	uv_timer_init(loop, &g->limit);
	g->patience.data = g->limit.data = g;
	g->handles = 2;
	return g;
}

void lh_gpus_close(struct lh_gpus *g, void (*closed)(void *arg), void *arg)
{
	LH_ASSERT(!g->done);
	g->closing = true;
	g->closed = closed;
	g->closed_arg = arg;
	if (g->state == IDLE || g->state == ASKED)
		let_go(g, true);
	if (g->state == ENDING && !uv_is_closing((uv_handle_t *)&g->process))
		uv_close((uv_handle_t *)&g->process, on_process_closed);
	uv_close((uv_handle_t *)&g->patience, on_closed);
	uv_close((uv_handle_t *)&g->limit, on_closed);
}
