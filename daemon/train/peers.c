/* peers.c: see peers.h. */
#include "train/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "join/join.h"
#include "lighthouse/proto.h"

enum { TURN_MS = 1000, LONG_TURNS = 5, WHAT_BYTES = 40,
       AFTER_MS = 500 /* another that was lost first has been told of */ };

/* Written by its rank alone. Text may be torn when it is read: it is for people. */
struct place {
	atomic_bool here;      /* it has begun, and shares this board */
	atomic_bool left;
	_Atomic int64_t step;  /* 0: before the first */
	_Atomic int64_t calls; /* collectives begun */
	atomic_bool inside;    /* the last of them has not returned */
	char what[WHAT_BYTES]; /* it is about */
};

struct lh_peers {
	int rank, size;
	char *fault;
	struct place *board; /* (size) */
	pthread_t thread;    /* of rank 0 */
	int stop_fd;         /* ends it */
};

static volatile sig_atomic_t child;

/* For a handler: what this process says when the one that started it is lost. */
static struct {
	char path[PATH_MAX], text[80];
} orphan;

/* "in step 12, in collective 90 (the gradient)" */
static void describe(const struct place *p, char *text, size_t bytes)
{
	int64_t step = atomic_load(&p->step), calls = atomic_load(&p->calls);
	char when[48] = "";

	if (step)
		snprintf(when, sizeof(when), "in step %" PRId64 ", ", step);
	if (!calls)
		snprintf(text, bytes, "before its first collective");
	else
		snprintf(text, bytes, "%s%s collective %" PRId64 " (%.*s)", when,
			 atomic_load(&p->inside) ? "in" : "after", calls, WHAT_BYTES,
			 p->what);
}

/* ---- the parent ------------------------------------------------------------ */

static void forward(int signal)
{
	if (child > 0)
		kill(child, signal);
}

/* The first one's word stands: others end because of it. */
static void say(const struct lh_peers *p, const char *text)
{
	int fd = open(p->fault, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		lh_warn("cannot write '%s': %s", p->fault, strerror(errno));
	close(fd);
	lh_error("%s", text);
}

/* The launcher ends ranks; when a part of it was killed, or a rank's parent was, nobody
 * would. */
static void on_orphaned(int signal)
{
	int fd = open(orphan.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	(void)signal;
	if (child > 0)
		kill(child, SIGKILL);
	_exit(fd >= 0 && write(fd, orphan.text, strlen(orphan.text)) < 0 ? 2 : 1);
}

/* `whom`: who started this process. */
static void end_with_parent(const struct lh_peers *p, const char *whom)
{
	struct sigaction lost = { .sa_handler = on_orphaned };

	snprintf(orphan.path, sizeof(orphan.path), "%s", p->fault);
	snprintf(orphan.text, sizeof(orphan.text), "rank %d lost its %s", p->rank, whom);
	sigaction(SIGUSR2, &lost, NULL);
	prctl(PR_SET_PDEATHSIG, SIGUSR2);
}

static void tell_of_loss(const struct lh_peers *p, int status)
{
	char how[80], where[160], text[300];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, sizeof(how), "exited with code %d", WEXITSTATUS(status));
	/* Ended by itself: perhaps over one that was lost a moment before. */
	if (!WIFSIGNALED(status) || WTERMSIG(status) == SIGABRT)
		usleep(AFTER_MS * 1000);
	describe(&p->board[p->rank], where, sizeof(where));
	snprintf(text, sizeof(text), "rank %d %s %s", p->rank, how, where);
	say(p, text);
}

static void __attribute__((noreturn)) wait_for_child(struct lh_peers *p)
{
	const struct place *own = &p->board[p->rank];
	int status, code;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			LH_BUG("a rank cannot be waited for: %s", strerror(errno));
	code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	if (!atomic_load(&own->left))
		tell_of_loss(p, status);
	/* The others wait for one that never met them, too: the launcher ends them. */
	if (!atomic_load(&own->left) || !atomic_load(&own->calls))
		code = code ? code : 1;
	_exit(lh_joined_code(code));
}

/* Returns in the child. SIGTERM waits until it can be passed on. */
static void guard(struct lh_peers *p)
{
	struct sigaction term = { .sa_handler = forward, .sa_flags = SA_RESTART }, was;
	sigset_t set, old;
	int parent = getpid(), pid;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &old);
	sigaction(SIGTERM, &term, &was);
	end_with_parent(p, "launcher");
	pid = fork();
	if (pid < 0)
		LH_BUG("a rank cannot fork: %s", strerror(errno));
	if (!pid) {
		end_with_parent(p, "parent");
		if (getppid() != parent)
			on_orphaned(0);
		sigaction(SIGTERM, &was, NULL);
	}
	child = pid;
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid)
		wait_for_child(p);
}

/* ---- the child ------------------------------------------------------------- */

/* Whether a rank has not come to rank 0's collective `call`; if all of this host have
 * (`least`), whether it is in it. */
static bool is_late(const struct place *p, int64_t call, int64_t least)
{
	return atomic_load(&p->here) && atomic_load(&p->calls) <= least &&
	       (least < call || atomic_load(&p->inside));
}

/* Those of other hosts are suspects where nobody here is. */
static void tell_who_is_late(struct lh_peers *p)
{
	const struct place *own = &p->board[0];
	int64_t call = atomic_load(&own->calls), least = call;
	char where[160];
	bool found = false;

	for (int r = 1; r < p->size; r++)
		if (atomic_load(&p->board[r].here) &&
		    atomic_load(&p->board[r].calls) < least)
			least = atomic_load(&p->board[r].calls);
	for (int r = 1; r < p->size; r++)
		found = found || is_late(&p->board[r], call, least);
	for (int r = 1; r < p->size; r++) {
		if (found ? !is_late(&p->board[r], call, least) :
			    atomic_load(&p->board[r].here))
			continue;
		describe(&p->board[r], where, sizeof(where));
		lh_warn("waiting for rank %d in collective %" PRId64 " (%.*s) for %d s: it "
			"is %s", r, call, WHAT_BYTES, own->what,
			TURN_MS / 1000 * LONG_TURNS,
			found ? where : "on another host, or has not begun");
	}
}

/* Rank 0's: tells once of each collective that takes long. */
static void *watch(void *arg)
{
	struct lh_peers *p = arg;
	const struct place *own = &p->board[0];
	struct pollfd stop = { .fd = p->stop_fd, .events = POLLIN };
	int64_t call = 0, turns = 0;

	while (poll(&stop, 1, TURN_MS) <= 0) {
		turns = atomic_load(&own->inside) && atomic_load(&own->calls) == call ?
				turns + 1 : 0;
		call = atomic_load(&own->calls);
		if (turns == LONG_TURNS)
			tell_who_is_late(p);
	}
	return NULL;
}

static void start_watch(struct lh_peers *p)
{
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (p->stop_fd < 0 || pthread_create(&p->thread, NULL, watch, p))
		LH_BUG("nobody to watch the other ranks: %s", strerror(errno));
}

static void stop_watch(struct lh_peers *p)
{
	uint64_t one = 1;

	if (write(p->stop_fd, &one, sizeof(one)) != sizeof(one))
		LH_BUG("an eventfd cannot be written: %s", strerror(errno));
	pthread_join(p->thread, NULL);
	close(p->stop_fd);
}

static int open_board(struct lh_peers *p, const char *dir, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", dir, LH_ATTEMPT_RANKS);
	size_t bytes = (size_t)p->size * sizeof(*p->board);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc = 0;
	void *at = MAP_FAILED;

	/* Whoever comes first makes it; the others find it as long as it is to be. */
	if (fd >= 0 && !ftruncate(fd, (off_t)bytes))
		at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		rc = lh_err_set(err, LH_EIO, "cannot map '%s': %s", path, strerror(errno));
	else
		p->board = at;
	if (fd >= 0)
		close(fd);
	free(path);
	return rc;
}

int lh_peers_begin(struct lh_peers **out, const char *dir, int rank, int size,
		   struct lh_err *err)
{
	struct lh_peers *p = lh_calloc(1, sizeof(*p));
	int rc;

	p->rank = rank;
	p->size = size;
	rc = open_board(p, dir, err);
	if (rc) {
		free(p);
		return rc;
	}
	p->fault = lh_asprintf("%s/%s", dir, LH_ATTEMPT_FAULT);
	atomic_store(&p->board[rank].here, true);
	guard(p);
	if (!rank)
		start_watch(p);
	*out = p;
	return 0;
}

void lh_peers_leave(struct lh_peers *p)
{
	if (!p)
		return;
	if (!p->rank)
		stop_watch(p);
	signal(SIGUSR2, SIG_DFL); /* ends it still, and says nothing */
	atomic_store(&p->board[p->rank].left, true);
	munmap(p->board, (size_t)p->size * sizeof(*p->board));
	free(p->fault);
	free(p);
}

void lh_peers_note(void *peers, const char *what, bool begins)
{
	struct lh_peers *p = peers;
	struct place *own = &p->board[p->rank];

	if (begins) {
		snprintf(own->what, sizeof(own->what), "%s", what);
		atomic_fetch_add(&own->calls, 1);
	}
	atomic_store(&own->inside, begins);
}

void lh_peers_step(struct lh_peers *p, int64_t step)
{
	if (p)
		atomic_store(&p->board[p->rank].step, step);
}
