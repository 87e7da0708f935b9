/* fuzz_wire.c: what a worker says to lhd (daemon/jobs/wire.c, record.c, sample.c).
 *
 * The input is what it sends before it hangs up. Unless that begins with '!', it has
 * said hello and was asked for a sample, call 1. Whatever it said, the sample is
 * answered once, lhd can tell of its jobs, and the next lhd finds a store that it can
 * load. */
#include "lhd.h"

static const char hello[] =
	"{\"m\":\"hello\",\"proto\":1,\"job\":3,\"attempt\":1,\"token\":\"secret\","
	"\"pid\":4,\"start_time\":5,\"generation\":7,\"first_seq\":21,\"next_seq\":21,"
	"\"step\":20,\"phase\":0,\"state\":\"running\"}\n";

static void on_piece(void *arg, json_t *piece)
{
	(void)arg;
	LH_ASSERT(json_is_string(json_object_get(piece, "text")));
}

static void on_reply(void *arg, json_t *result, const struct lh_err *err)
{
	LH_ASSERT(result ? !err : err->code < 0);
	++*(int *)arg;
}

static void say_hello(int fd)
{
	LH_ASSERT(send(fd, hello, strlen(hello), 0) == (ssize_t)strlen(hello));
	while (!lh_jobs_workers(lhd.jobs))
		uv_run(&lhd.loop, UV_RUN_ONCE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	bool raw = bytes && data[0] == '!';
	int fd, replies = 0;

	lhd_open(true);
	fd = lhd_dial(LH_STATE_WORKER_SOCKET);
	if (!raw) {
		say_hello(fd);
		lh_jobs_sample(lhd.jobs, LHD_RUNNING, NULL, on_piece, on_reply, &replies);
	}
	lhd_talk(fd, data + raw, bytes - raw);
	LH_ASSERT(replies == !raw);
	lhd_look();
	lhd_close();
	lhd_reopen();
	lhd_look();
	lhd_close();
	return 0;
}
