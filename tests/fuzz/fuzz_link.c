/* fuzz_link.c: what a worker is told over its line (train/link.h, lighthouse/proto.h),
 * by an lhd that may say anything.
 *
 * The input is what lhd sends, after a welcome of its own unless it begins with '!';
 * then it hangs up. The worker has records to send, answers what it is called for,
 * and must have read everything, which shows in its hanging up too. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buf.h"
#include "base/log.h"
#include "fuzz.h"
#include "lighthouse/proto.h"
#include "train/link.h"
#include "train/sample.h"

enum { RECORDS = 12 };

static const char welcome[] =
	"{\"m\":\"welcome\",\"proto\":1,\"generation\":5,\"stored_seq\":0}\n";

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	unlink(path);
	LH_ASSERT(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a)) && !listen(fd, 8));
	return fd;
}

/* The worker has one line: who dials again finds nobody. libFuzzer's clock may
 * interrupt the wait. */
static int accept_one(int listener)
{
	int fd;

	do
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	LH_ASSERT(fd >= 0);
	close(listener);
	return fd;
}

static void post_records(struct lh_link *link)
{
	for (int i = 1; i <= RECORDS; i++)
		lh_link_post_take(link, json_pack("{s:s, s:i, s:f}", "t", i < RECORDS ? "step" : "end",
						  "step", i, "loss", 1.5));
}

/* Commands are looked at as the training loop does, calls answered. */
static void obey(struct lh_link *link)
{
	struct lh_sample_args args;
	struct lh_err err;
	json_t *m;

	while ((m = lh_link_take(link, 0))) {
		const char *name = json_string_value(json_object_get(m, "m"));

		LH_ASSERT(name);
		if (!strcmp(name, "call")) {
			lh_sample_parse(&args, json_object_get(m, "args"), &err);
			lh_link_answer_take(link, m, json_pack("{s:s}", "m", "reply"));
		}
		json_decref(m);
	}
}

/* Says it all while reading, until the worker hangs up. */
static void talk(int fd, const char *text, size_t bytes)
{
	char sink[65536];
	bool ended = false;
	ssize_t n;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN | (bytes ? POLLOUT : 0) };

		LH_ASSERT(poll(&p, 1, -1) > 0 || errno == EINTR);
		if (p.revents & POLLOUT) {
			n = send(fd, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				return;
			if (n > 0) {
				text += n;
				bytes -= (size_t)n;
			}
		}
		if (!bytes && !ended) {
			shutdown(fd, SHUT_WR);
			ended = true;
		}
		if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
			n = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
			if (n == 0 || (n < 0 && errno != EAGAIN))
				return;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	bool raw = bytes && data[0] == '!';
	struct lh_buf said = { 0 };
	char *path = lh_asprintf("%s/worker.sock", fuzz_dir());
	char *spool = lh_asprintf("%s/spool.jsonl", fuzz_dir());
	struct lh_link_config c = { .job = 1, .attempt = 1, .generation = 5, .token = "secret",
				    .socket = path, .spool = spool };
	int listener = listen_at(path), fd;
	struct lh_err err = LH_ERR_INIT;
	struct lh_link *link;

	lh_log_set_level(LH_LOG_ERROR);
	LH_ASSERT(!lh_link_open(&link, &c, &err));
	post_records(link);
	fd = accept_one(listener);
	lh_buf_append(&said, welcome, raw ? 0 : strlen(welcome));
	lh_buf_append(&said, data + raw, bytes - raw);
	talk(fd, said.data, said.used_bytes);
	obey(link);
	close(fd);
	lh_link_close(link, 0);
	lh_buf_release(&said);
	free(path);
	free(spool);
	return 0;
}
