/* fuzz_http.c: the page's server (daemon/http/): what is checked of a request, calls, and
 * the stream's query, over a real store and jobs.
 *
 * The input is what a client sends before it ends its side. The key of sixty-four 0 reads.
 * An answer is read to its end, a stream for a while: it has none. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "control/control.h"
#include "http/http.h"
#include "lhd.h"

enum { TURNS_MAX = 100 };

static void on_stop(void *arg)
{
	(void)arg;
}

static void publish(void *control, const struct lh_event *ev)
{
	lh_control_publish(control, ev);
}

static int dial(const struct lh_control *control)
{
	const char *port = strrchr(lh_http_address(control->http), ':') + 1;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct linger none = { .l_onoff = 1 }; /* no port is left waiting */
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	LH_ASSERT(fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)));
	LH_ASSERT(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)));
	LH_ASSERT(!fcntl(fd, F_SETFL, O_NONBLOCK));
	return fd;
}

/* False when lhd has hung up. */
static bool hear(int fd)
{
	char buf[65536];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);

	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void talk(int fd, const uint8_t *at, size_t n)
{
	struct pollfd p[2] = { { fd, POLLIN, 0 }, { uv_backend_fd(&lhd.loop), POLLIN, 0 } };
	bool ended = false;

	for (int i = 0; i < TURNS_MAX && hear(fd); i++) {
		ssize_t sent = n ? send(fd, at, n, MSG_NOSIGNAL) : 0;

		if (sent > 0) {
			at += sent;
			n -= (size_t)sent;
			i = 0;
		}
		if (!n && !ended)
			ended = !shutdown(fd, SHUT_WR);
		uv_run(&lhd.loop, UV_RUN_NOWAIT);
		poll(p, 2, 1);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct lh_control_config c = { .state_dir = lhd.state,
					.bin_dir = lhd.state, .generation = 7,
				       .stop = on_stop };
	struct lh_control *control;
	bool closed = false;
	char key[65];

	memset(key, '0', 64);
	lhd_reset(true);
	fuzz_write(lhd.state, LH_STATE_METRICS_KEY, key, 64);
	lhd_reopen();
	LH_ASSERT(!lh_control_open(&control, &lhd.loop, lhd.jobs, lhd.store, &c, NULL));
	LH_ASSERT(control->http);
	lhd.sink = publish;
	lhd.sink_arg = control;
	talk(dial(control), data, bytes);
	lhd_look();
	lhd.sink = NULL;
	lh_control_close(control, lhd_on_closed, &closed);
	while (!closed)
		uv_run(&lhd.loop, UV_RUN_ONCE);
	lhd_close();
	return 0;
}
