/* fuzz_sealed.c: what a stranger may send to a door, or a rank (join/sealed.h): nobody without
 * the token is ever heard.
 *
 * The first byte chooses the side that reads, the rest is what it gets. */
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "join/sealed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_sealed s;
	json_t *m;
	int fd[2], rc;

	if (!bytes || socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		return 0;
	lh_sealed_init(&s, fd[0], data[0] & 1, "a token that nobody guesses");
	lh_frame_push(&s.in, (const char *)data + 1, bytes - 1);
	rc = lh_sealed_next(&s, &m, &err);
	LH_ASSERT(rc <= 0 && !m && !s.is_open);
	LH_ASSERT(!rc || rc == LH_EPROTO || rc == LH_EDENIED);
	lh_sealed_release(&s);
	close(fd[1]);
	return 0;
}
