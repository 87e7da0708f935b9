/* tokenizer.c: see tokenizer.h.
 *
 * A socket and no pipes, so that writing to a program that is gone is an error and no
 * signal. What it says on stderr goes into a file in memory, whose first line explains
 * its end. */
#include "tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/utf8.h"
#include "ctl.h"

enum { READY = 1, ENCODE, IDS, DECODE, TEXT, ERROR };
enum { VERSION = 1, LOAD_MS = 120000, REPLY_MS = 60000, BYTES_A_SECOND = 64 << 10,
       HEAD_BYTES = 8, ERROR_MAX_BYTES = 4096 };
/* An id takes a byte of text, but for what normalization makes longer. */
enum { IDS_A_BYTE = 32, IDS_A_TEXT = 64, BYTES_AN_ID = 1024, TEXT_FREE_BYTES = 16 << 20 };
#define REPLACEMENT "\xef\xbf\xbd"
/* From the directory of lhctl. */
#define HF_PROGRAM "../lib/lighthouse/hf/main.mjs"
#define SENTENCEPIECE_PROGRAM "lhsentencepiece"
/* A third of what node's library does is to take and give back memory. There where
 * Debian's libmimalloc2.0 was when this was built. */
#define HF_ALLOCATOR "../lib/lighthouse/hf/libmimalloc.so"
/* Twice what a library takes for the longest text. AddressSanitizer sets terabytes aside. */
#ifdef __SANITIZE_ADDRESS__
#define MEMORY_MAX_BYTES RLIM_INFINITY
#else
#define MEMORY_MAX_BYTES (INT64_C(12) << 30)
#endif

struct ctl_tokenizer {
	int64_t vocab, reply_ms, bytes_a_second;
	pid_t pid;       /* 0: ended */
	int fd, said;    /* its stdin and stdout; its stderr */
	struct lh_err failed;
};

/* ---- its end --------------------------------------------------------------- */

/* What it said first: a stack and advice come behind it. A panic's place, with a colon
 * at its end, comes before it. "" if it said nothing. */
static void first_line(const struct ctl_tokenizer *t, char *out, size_t room)
{
	char said[2048], *rest = said, *line;
	ssize_t n = pread(t->said, said, sizeof(said) - 1, 0);

	said[n > 0 ? n : 0] = '\0';
	out[0] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		snprintf(out, room, "%s", line);
		if (*line && line[strlen(line) - 1] != ':')
			return;
	}
}

/* What it was told or did is no matter any more. */
static int end(struct ctl_tokenizer *t)
{
	int status = 0;

	if (!t->pid)
		return 0;
	kill(t->pid, SIGKILL);
	while (waitpid(t->pid, &status, 0) < 0 && errno == EINTR)
		;
	t->pid = 0;
	return status;
}

/* For good: `err` is what every later call says. */
static int fail(struct ctl_tokenizer *t, struct lh_err *err)
{
	end(t);
	t->failed = *err;
	return err->code;
}

static int died(struct ctl_tokenizer *t, struct lh_err *err)
{
	int status = end(t);
	char said[200];

	first_line(t, said, sizeof(said));
	if (WIFSIGNALED(status))
		lh_err_set(err, LH_EDATA, "the tokenizer was ended by signal %d%s%s",
			   WTERMSIG(status), *said ? ": " : "", said);
	else
		lh_err_set(err, LH_EDATA, "the tokenizer ended with status %d%s%s",
			   WEXITSTATUS(status), *said ? ": " : "", said);
	lh_err_hint(err, "its file may be damaged, or memory short: fewer --threads take "
		    "less");
	return fail(t, err);
}

static int hung(struct ctl_tokenizer *t, struct lh_err *err)
{
	lh_err_set(err, LH_ETIMEOUT, "the tokenizer gives no answer");
	lh_err_hint(err, "a pattern in its file may take for ever; is it one to be trusted?");
	return fail(t, err);
}

static int lied(struct ctl_tokenizer *t, const char *what, struct lh_err *err)
{
	lh_err_set(err, LH_EPROTO, "the tokenizer gives an answer that is none: %s", what);
	lh_err_hint(err, "is it of another version? make, or make install, brings its own");
	return fail(t, err);
}

void ctl_tokenizer_close(struct ctl_tokenizer *t)
{
	if (!t)
		return;
	end(t);
	close(t->fd);
	close(t->said);
	free(t);
}

/* ---- frames ---------------------------------------------------------------- */

/* Whether `events` came before the deadline. */
static bool await(const struct ctl_tokenizer *t, short events, int64_t end_us)
{
	for (;;) {
		struct pollfd p = { .fd = t->fd, .events = events };
		int64_t left_ms = (end_us - lh_clock_us()) / 1000;
		int rc = poll(&p, 1, left_ms < 0 ? 0 : left_ms > INT_MAX ? INT_MAX :
								       (int)left_ms);

		if (rc >= 0 || errno != EINTR)
			return rc > 0;
	}
}

static int send_all(struct ctl_tokenizer *t, const char *data, size_t n, int64_t end_us,
		    struct lh_err *err)
{
	while (n) {
		ssize_t sent = send(t->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EAGAIN) {
			if (!await(t, POLLOUT, end_us))
				return hung(t, err);
			continue;
		}
		if (sent < 0 && errno != EINTR)
			return died(t, err);
		data += sent > 0 ? sent : 0;
		n -= sent > 0 ? (size_t)sent : 0;
	}
	return 0;
}

static int receive_all(struct ctl_tokenizer *t, void *data, size_t n, int64_t end_us,
		       struct lh_err *err)
{
	for (char *at = data; n;) {
		ssize_t got;

		if (!await(t, POLLIN, end_us))
			return hung(t, err);
		got = recv(t->fd, at, n, MSG_DONTWAIT);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return died(t, err);
		at += got;
		n -= (size_t)got;
	}
	return 0;
}

static int say_error(struct ctl_tokenizer *t, const char *text, struct lh_err *err)
{
	lh_err_set(err, LH_EDATA, "the tokenizer says: %s", text);
	lh_err_hint(err, "its library does not take this; was its file copied whole?");
	return fail(t, err);
}

/* A frame of this kind, its body (heap, a NUL behind it) not longer than max_bytes. */
static int receive(struct ctl_tokenizer *t, uint32_t kind, size_t max_bytes, int64_t end_us,
		   char **body, size_t *bytes, struct lh_err *err)
{
	uint32_t head[2];
	int rc = receive_all(t, head, HEAD_BYTES, end_us, err);

	if (rc)
		return rc;
	if (head[1] != kind && head[1] != ERROR)
		return lied(t, "another kind was due", err);
	if (head[0] > (head[1] == ERROR ? ERROR_MAX_BYTES : max_bytes))
		return lied(t, "it is too long", err);
	*bytes = head[0];
	*body = lh_alloc(head[0] + (size_t)1);
	rc = receive_all(t, *body, head[0], end_us, err);
	if (!rc) {
		(*body)[head[0]] = '\0';
		if (head[1] == kind)
			return 0;
		rc = say_error(t, *body, err);
	}
	free(*body);
	return rc;
}

/* Bytes that are whole characters, ASCII first: there it is fast. */
static size_t good_run(const unsigned char *s, size_t n)
{
	size_t i = 0;
	int span;

	while (i < n && s[i] < 0x80)
		i++;
	while (i < n && (span = lh_utf8_span(s + i, n - i)) > 0)
		i += (size_t)span;
	return i;
}

/* What begins a character that does not come: as much as Unicode has one U+FFFD stand
 * for, as browsers and Python do. */
static size_t bad_run(const unsigned char *s, size_t n)
{
	size_t i = 1;

	while (i < n && !lh_utf8_span(s, i))
		i++;
	return i > 1 && lh_utf8_span(s, i) ? i - 1 : i;
}

static void append_text(struct lh_buf *to, const char *text, size_t left)
{
	const unsigned char *at = (const unsigned char *)text;

	while (left) {
		size_t n = good_run(at, left);

		lh_buf_append(to, at, n);
		at += n;
		left -= n;
		if (!left)
			break;
		lh_buf_append(to, REPLACEMENT, 3);
		n = bad_run(at, left);
		at += n;
		left -= n;
	}
}

static int64_t deadline_us(const struct ctl_tokenizer *t, int64_t bytes)
{
	return lh_clock_us() + t->reply_ms * 1000 + bytes * 1000000 / t->bytes_a_second;
}

/* ---- its start ------------------------------------------------------------- */

/* This process's, with a library that is loaded before all others. Ours to free, its
 * texts but the first are not. */
static char **environment_of(const char *preload)
{
	const char *before = getenv("LD_PRELOAD");
	size_t n = 0, kept = 1;
	char **env;

	while (environ[n])
		n++;
	env = lh_calloc(n + 2, sizeof(*env));
	env[0] = lh_asprintf("LD_PRELOAD=%s%s%s", preload, before ? ":" : "",
			     before ? before : "");
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "LD_PRELOAD=", 11))
			env[kept++] = environ[i];
	return env;
}

/* In the child: nothing here may take a lock that another thread of lhctl held. */
static void become(const struct ctl_tokenizer_program *p, char **env, int fd, int said)
{
	struct rlimit memory = { p->memory_bytes, p->memory_bytes }, none = { 0, 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_DATA, &memory);
	setrlimit(RLIMIT_CORE, &none);
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(said, STDERR_FILENO);
	execvpe(p->args[0], (char *const *)p->args, env);
	_exit(127);
}

static int spawn(struct ctl_tokenizer *t, const struct ctl_tokenizer_program *p,
		 struct lh_err *err)
{
	char **env;
	int fds[2];

	t->said = memfd_create("tokenizer", MFD_CLOEXEC);
	if (t->said < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return lh_err_set(err, LH_EIO, "no socket: %s", strerror(errno));
	t->fd = fds[0];
	env = p->preload ? environment_of(p->preload) : NULL;
	t->pid = fork();
	if (!t->pid)
		become(p, env ? env : environ, fds[1], t->said);
	close(fds[1]);
	if (env)
		free(env[0]);
	free(env);
	if (t->pid > 0)
		return 0;
	t->pid = 0;
	return lh_err_set(err, LH_EIO, "no process: %s", strerror(errno));
}

static int greet(struct ctl_tokenizer *t, int64_t load_ms, struct lh_err *err)
{
	uint32_t ready[2];
	char *body;
	size_t bytes;
	int rc = receive(t, READY, sizeof(ready), lh_clock_us() + load_ms * 1000, &body, &bytes,
			 err);

	if (rc)
		return rc;
	memcpy(ready, body, bytes);
	free(body);
	if (bytes != sizeof(ready) || ready[0] != VERSION)
		return lied(t, "it is of another version", err);
	if (ready[1] > t->vocab)
		return lied(t, "its vocabulary is not the file's", err);
	return 0;
}

int ctl_tokenizer_start(struct ctl_tokenizer **out, const struct ctl_tokenizer_program *p,
			int64_t vocab, struct lh_err *err)
{
	struct ctl_tokenizer *t = lh_calloc(1, sizeof(*t));
	int rc;

	*t = (struct ctl_tokenizer){ .vocab = vocab, .reply_ms = p->reply_ms,
				     .bytes_a_second = p->bytes_a_second, .fd = -1,
				     .said = -1 };
	rc = spawn(t, p, err);
	if (!rc)
		rc = greet(t, p->load_ms, err);
	if (rc)
		ctl_tokenizer_close(t);
	else
		*out = t;
	return rc;
}

static bool is_on_path(const char *name)
{
	const char *at = getenv("PATH");
	bool found = false;

	while (at && *at && !found) {
		size_t n = strcspn(at, ":");
		char *path = lh_asprintf("%.*s/%s", (int)n, at, name);

		found = !access(path, X_OK);
		free(path);
		at += n + (at[n] == ':');
	}
	return found;
}

/* By its place from the directory of lhctl. */
static char *path_of(const char *place)
{
	char *bin = ctl_bin_dir();
	char *path = lh_asprintf("%s/%s", bin, place);

	free(bin);
	return path;
}

static char *program_of(enum lh_vocabulary_kind kind)
{
	return path_of(kind == LH_VOCABULARY_JSON ? HF_PROGRAM : SENTENCEPIECE_PROGRAM);
}

/* NULL: it is not there, or ld.so would take its name for several. */
static char *allocator_of(enum lh_vocabulary_kind kind)
{
	char *path = kind == LH_VOCABULARY_JSON ? path_of(HF_ALLOCATOR) : NULL;

	if (path && !access(path, R_OK) && !strpbrk(path, " :"))
		return path;
	free(path);
	return NULL;
}

int ctl_tokenizer_check(enum lh_vocabulary_kind kind, struct lh_err *err)
{
	char *program = program_of(kind);
	int rc = 0;

	if (access(program, R_OK)) {
		rc = lh_err_set(err, LH_EUNSUPPORTED, "there is no '%s'", program);
		lh_err_hint(err, "make builds it where %s is: 'make deps' installs that",
			    kind == LH_VOCABULARY_JSON ? "npm" : "libsentencepiece-dev");
	} else if (kind == LH_VOCABULARY_JSON && !is_on_path("node")) {
		rc = lh_err_set(err, LH_EUNSUPPORTED, "tokenizer.json needs node, which is not "
				"on PATH");
		lh_err_hint(err, "install Debian's nodejs");
	}
	free(program);
	return rc;
}

int ctl_tokenizer_open(struct ctl_tokenizer **t, const char *path,
		       const struct lh_vocabulary *v, struct lh_err *err)
{
	char *program = program_of(v->kind), *allocator = allocator_of(v->kind);
	/* Room in which texts and ids are forgotten before they are moved. */
	const char *by_node[] = { "node", "--max-semi-space-size=32", program, path, NULL };
	const char *alone[] = { program, path, NULL };
	struct ctl_tokenizer_program p = { v->kind == LH_VOCABULARY_JSON ? by_node : alone,
					   allocator, LOAD_MS, REPLY_MS, BYTES_A_SECOND,
					   MEMORY_MAX_BYTES };
	int rc = ctl_tokenizer_check(v->kind, err);

	if (!rc)
		rc = ctl_tokenizer_start(t, &p, v->size, err);
	free(allocator);
	free(program);
	return rc ? lh_err_prefix(err, "'%s'", path) : 0;
}

/* ---- encoding and decoding ------------------------------------------------- */

static int too_long(const struct ctl_text *text, struct lh_err *err)
{
	lh_err_set(err, LH_ETOOBIG, "a text of %" PRId64 " MiB", text->bytes >> 20);
	return lh_err_hint(err, "a tokenizer takes at most %d MiB at once: split it, as into "
			   "lines of a .jsonl file", CTL_TOKENIZER_TEXT_BYTES >> 20);
}

static int check_ids(struct ctl_tokenizer *t, const uint32_t *ids, int64_t n,
		     struct lh_err *err)
{
	for (int64_t i = 0; i < n; i++)
		if (ids[i] >= t->vocab)
			return lied(t, "an id is beyond the vocabulary", err);
	return 0;
}

/* counts (n), then as many ids as they say together, into `ids`. */
static int take_ids(struct ctl_tokenizer *t, const char *body, size_t bytes, int n,
		    struct ctl_ids *ids, int64_t *counts, struct lh_err *err)
{
	const uint32_t *words = (const uint32_t *)(const void *)body; /* of malloc */
	int64_t all = (int64_t)(bytes / 4) - n, sum = 0;
	int rc;

	for (int i = 0; all >= 0 && i < n; i++) {
		counts[i] = words[i];
		sum += words[i];
	}
	if (bytes % 4 || all != sum)
		return lied(t, "its length is not what its parts make", err);
	rc = check_ids(t, words + n, all, err);
	if (rc)
		return rc;
	if (ids->count + all > ids->cap) {
		ids->cap = 2 * (ids->count + all);
		ids->ids = lh_realloc(ids->ids, (size_t)ids->cap * sizeof(*ids->ids));
	}
	if (all)
		memcpy(ids->ids + ids->count, words + n, (size_t)all * 4);
	ids->count += all;
	return 0;
}

/* The frame of texts; the bytes of a text are known when it is there. */
static void put_texts(struct lh_buf *frame, const struct ctl_text *texts, int n)
{
	uint32_t *head = lh_calloc(3 + (size_t)n, sizeof(*head));

	lh_buf_append(frame, head, (3 + (size_t)n) * sizeof(*head));
	for (int i = 0; i < n; i++) {
		size_t from = frame->used_bytes;

		append_text(frame, texts[i].text, (size_t)texts[i].bytes);
		head[3 + i] = (uint32_t)(frame->used_bytes - from);
	}
	LH_ASSERT(frame->used_bytes <= UINT32_MAX);
	head[0] = (uint32_t)(frame->used_bytes - HEAD_BYTES);
	head[1] = ENCODE;
	head[2] = (uint32_t)n;
	memcpy(frame->data, head, (3 + (size_t)n) * sizeof(*head));
	free(head);
}

int ctl_tokenizer_encode(struct ctl_tokenizer *t, const struct ctl_text *texts, int n,
			 struct ctl_ids *ids, int64_t *counts, struct lh_err *err)
{
	struct lh_buf frame = { 0 };
	int64_t bytes, end_us;
	size_t body_bytes;
	char *body;
	int rc;

	for (int i = 0; i < n; i++)
		if (texts[i].bytes > CTL_TOKENIZER_TEXT_BYTES)
			return too_long(&texts[i], err);
	if (t->failed.code) {
		*err = t->failed;
		return err->code;
	}
	put_texts(&frame, texts, n);
	bytes = (int64_t)frame.used_bytes;
	end_us = deadline_us(t, bytes);
	rc = send_all(t, frame.data, frame.used_bytes, end_us, err);
	lh_buf_release(&frame);
	if (!rc)
		rc = receive(t, IDS, (size_t)(bytes * IDS_A_BYTE + (int64_t)n * IDS_A_TEXT) * 4,
			     end_us, &body, &body_bytes, err);
	if (rc)
		return rc;
	rc = take_ids(t, body, body_bytes, n, ids, counts, err);
	free(body);
	return rc;
}

/* A C string of it. */
static char *string_of(const char *body, size_t bytes)
{
	struct lh_buf text = { 0 };

	while (bytes) {
		size_t n = strnlen(body, bytes);

		append_text(&text, body, n);
		if (n < bytes) {
			lh_buf_append(&text, REPLACEMENT, 3);
			n++;
		}
		body += n;
		bytes -= n;
	}
	lh_buf_append(&text, "", 1);
	return text.data;
}

static int check_known(const struct ctl_tokenizer *t, const int32_t *ids, int64_t n,
		       struct lh_err *err)
{
	for (int64_t i = 0; i < n; i++) {
		if (ids[i] >= 0 && ids[i] < t->vocab)
			continue;
		lh_err_set(err, LH_EDATA, "id %d is none of the tokenizer's %" PRId64, ids[i],
			   t->vocab);
		return lh_err_hint(err, "is it the tokenizer that the text was packed with?");
	}
	return 0;
}

int ctl_tokenizer_decode(struct ctl_tokenizer *t, const int32_t *ids, int64_t n,
			 char **text, struct lh_err *err)
{
	uint32_t head[2] = { (uint32_t)n * 4, DECODE };
	int64_t end_us = deadline_us(t, n * 4);
	size_t bytes;
	char *body;
	int rc = check_known(t, ids, n, err);

	LH_ASSERT(n * 4 <= UINT32_MAX);
	if (rc)
		return rc;
	if (t->failed.code) {
		*err = t->failed;
		return err->code;
	}
	rc = send_all(t, (const char *)head, sizeof(head), end_us, err);
	if (!rc)
		rc = send_all(t, (const char *)ids, (size_t)n * 4, end_us, err);
	if (!rc)
		rc = receive(t, TEXT, (size_t)(n * BYTES_AN_ID + TEXT_FREE_BYTES), end_us,
			     &body, &bytes, err);
	if (rc)
		return rc;
	*text = string_of(body, bytes);
	free(body);
	return 0;
}
