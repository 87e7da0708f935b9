/* fuzz_control.c: the control socket (daemon/control/): framing, JSON-RPC, the checks
 * of parameters and every method, over a real store and jobs.
 *
 * The input is what a client sends before it ends its side; it gets its answers and
 * is hung up on. Job files may name the shard a.bin in BASE_DIR. */
#include <fcntl.h>

#include "control/control.h"
#include "lhd.h"
#include "lighthouse/shard.h"

/* /proc/self/fd/100 is the scratch directory: a path that inputs can hold. */
enum { BASE_FD = 100, TOKENS = 4096 };

static void make_base_dir(void)
{
	static bool made;
	struct lh_shard_writer *w;
	int fd;

	if (made)
		return;
	made = true;
	fd = open(fuzz_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	LH_ASSERT(fd >= 0 && dup2(fd, BASE_FD) == BASE_FD);
	close(fd);
	LH_ASSERT(!lh_shard_writer_new(&w, "/proc/self/fd/100/a.bin", LH_BYTES_VOCAB,
				       LH_BYTES_SEPARATOR, NULL));
	for (int32_t i = 0, id = 7; i < TOKENS; i++)
		LH_ASSERT(!lh_shard_writer_add(w, &id, 1, NULL));
	LH_ASSERT(!lh_shard_writer_commit(w, 1, NULL));
}

static void on_stop(void *arg)
{
	(void)arg;
}

static void publish(void *control, const struct lh_event *ev)
{
	lh_control_publish(control, ev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct lh_control_config c = { .state_dir = lhd.state,
					.bin_dir = lhd.state, .generation = 7,
				       .page_port = LH_CONTROL_NO_PAGE,
				       .stop = on_stop };
	struct lh_control *control;
	bool closed = false;

	make_base_dir();
	lhd_open(true);
	LH_ASSERT(!lh_control_open(&control, &lhd.loop, lhd.jobs, lhd.store, &c, NULL));
	lhd.sink = publish;
	lhd.sink_arg = control;
	lhd_talk(lhd_dial(LH_STATE_CONTROL_SOCKET), data, bytes);
	lhd_look();
	lhd.sink = NULL;
	lh_control_close(control, lhd_on_closed, &closed);
	while (!closed)
		uv_run(&lhd.loop, UV_RUN_ONCE);
	lhd_close();
	return 0;
}
