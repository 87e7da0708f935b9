/* door.c: see door.h. */
#include "join/door.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "join/joinfile.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"

enum { STRANGERS_MAX = 32, GUESTS_MAX = LH_DEVICES_MAX + STRANGERS_MAX, HOST_BYTES = 65,
       FROM_BYTES = 16, FILE_MAX_BYTES = 64 << 20, LINE_MAX_BYTES = 1 << 16,
       STRANGER_MS = 10000, LEAVE_MS = 3000, LOOK_MS = 500 };

/* Whoever has dialled; with a rank he has a seat. */
struct guest {
	struct lh_sealed line;
	char from[FROM_BYTES];
	int64_t came_us;
	int rank;               /* -1: none yet */
	int local_rank;         /* as its launcher says, or -1 */
	char host[HOST_BYTES];
	bool has_left;          /* its proxy has ended */
	bool is_going;          /* to be shown out */
};

struct door {
	struct lh_joinfile file;
	const char *dir, *launcher;
	json_t *start, *spec;
	json_t *token;          /* the attempt's: who reads it at `dir`, is on lhd's host */
	int64_t attempt;
	int listener, signals;
	struct guest *guests[GUESTS_MAX];
	int count;
	int pid;                /* the launcher's; 0: not started, or reaped */
	int output;             /* what it prints, -1: nothing yet, or no more */
	struct lh_frame lines;
	bool started, told_to_end, was_killed;
	int status;             /* of the launcher, once it is reaped */
	int64_t reaped_us;
};

/* ---- seats ----------------------------------------------------------------- */

static struct guest *seat_of(const struct door *d, int rank)
{
	for (int i = 0; i < d->count; i++)
		if (d->guests[i]->rank == rank && !d->guests[i]->is_going)
			return d->guests[i];
	return NULL;
}

static int missing(const struct door *d)
{
	int n = 0;

	for (int r = 0; r < d->file.devices; r++)
		n += !seat_of(d, r);
	return n;
}

/* Which of its host it is, by those that sit here; and how many they are. */
static int place_of(const struct door *d, const struct guest *g, int *ranks)
{
	int lower = 0;

	*ranks = 0;
	for (int i = 0; i < d->count; i++) {
		const struct guest *other = d->guests[i];

		if (other->rank < 0 || strcmp(other->host, g->host))
			continue;
		++*ranks;
		lower += other->rank < g->rank;
	}
	return g->local_rank >= 0 ? g->local_rank : lower;
}

/* `again`: the next one to ask may have a seat. */
static void refuse(struct guest *g, bool again, const struct lh_err *err)
{
	lh_warn("a rank from %s was sent away: %s", g->from, err->text);
	lh_sealed_send_take(&g->line,
			    json_pack("{s:s, s:b, s:s, s:s}", "m", "refuse", "again", again,
				      "text", err->text, "hint", err->hint));
	g->is_going = true;
}

/* Why somebody with the token has no seat. */
static int check(const struct door *d, int rank, int size, const char *device,
		 const char *version, struct lh_err *err)
{
	const char *wanted = d->file.device == LH_DEVICE_CUDA ? "cuda" : "cpu";
	const struct guest *other = seat_of(d, rank);

	if (strcmp(version, LH_VERSION)) {
		lh_err_set(err, LH_EPROTO, "this is version %.32s, lhd's is " LH_VERSION,
			   version);
		return lh_err_hint(err, "install the same on all hosts");
	}
	if (strcmp(device, wanted)) {
		lh_err_set(err, LH_EINVAL, "the job is one for '%s'", wanted);
		return lh_err_hint(err, "start lhworker-%s", wanted);
	}
	if (size != d->file.devices || rank < 0 || rank >= size) {
		lh_err_set(err, LH_EINVAL, "the job has %d ranks, the launcher says that this "
			   "is rank %d of %d", d->file.devices, rank, size);
		return lh_err_hint(err, "start as many as the job's devices");
	}
	if (d->started)
		return lh_err_set(err, LH_EBUSY, "all ranks of attempt %" PRId64 " are here",
				  d->attempt);
	if (other) {
		lh_err_set(err, LH_EINVAL, "rank %d is here already, from %s", rank,
			   other->host);
		return lh_err_hint(err, "two launchers run, or one gives a number twice");
	}
	return 0;
}

static void take_seat(struct door *d, struct guest *g, const json_t *m)
{
	const char *device, *version, *host;
	struct lh_err err = LH_ERR_INIT;
	int rank, size, local_rank, left;

	if (json_unpack((json_t *)m, "{s:i, s:i, s:i, s:s, s:s, s:s}", "rank", &rank, "size",
			&size, "local_rank", &local_rank, "host", &host, "device", &device,
			"version", &version)) {
		lh_err_set(&err, LH_EPROTO, "what it asks for is not understood");
		refuse(g, false, &err);
		return;
	}
	if (check(d, rank, size, device, version, &err)) {
		refuse(g, err.code == LH_EBUSY, &err);
		return;
	}
	g->rank = rank;
	g->local_rank = local_rank;
	lh_escape(g->host, sizeof(g->host), host);
	left = missing(d);
	lh_info("rank %d is here, of host %s (%s); %d to come", rank, g->host, g->from,
		left);
	lh_sealed_send_take(&g->line,
			    json_pack("{s:s, s:s, s:i, s:O, s:O}", "m", "seat", "dir", d->dir,
				      "missing", left, "token", d->token, "spec", d->spec));
}

/* ---- faults ---------------------------------------------------------------- */

/* As train/peers.c does: the first word stands. */
static void tell_fault(const struct door *d, const char *text)
{
	char *path = lh_asprintf("%s/" LH_ATTEMPT_FAULT, d->dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd >= 0) {
		if (write(fd, text, strlen(text)) < 0)
			lh_warn("cannot write '%s': %s", path, strerror(errno));
		close(fd);
		lh_error("%s", text);
	}
	free(path);
}

static void take_fault(const struct door *d, const struct guest *g, const json_t *m)
{
	const char *text = json_string_value(json_object_get(m, "text"));
	char clean[300], *all;

	if (!text)
		return;
	all = lh_asprintf("%s, on host %s", lh_escape(clean, sizeof(clean), text), g->host);
	tell_fault(d, all);
	free(all);
}

/* Its line is gone. */
static void lose(struct door *d, struct guest *g)
{
	char text[160];

	g->is_going = true;
	if (g->rank < 0)
		return;
	if (!d->started) {
		lh_warn("rank %d, of host %s, went before all had come", g->rank, g->host);
		return;
	}
	if (!d->pid || g->has_left)
		return;
	snprintf(text, sizeof(text), "rank %d was lost with its launcher or its host, %s",
		 g->rank, g->host);
	tell_fault(d, text);
	d->was_killed = true;
	kill(d->pid, SIGKILL); /* it would wait for an answer */
}

/* ---- the launcher ---------------------------------------------------------- */

/* What runs on each host is that host's: paths and environment are not lhd's. */
static char run_rank[] = "exec \"$LH_JOIN_WORKER\" --attempt \"$LH_JOIN_DIR\"";

static void __attribute__((noreturn)) become_launcher(const struct door *d, int output)
{
	char hosts[LH_DEVICES_MAX * 8] = "", count[12];
	char *args[] = { (char *)d->launcher, "-launcher", "manual", "-rmk", "user",
			 "-genvnone", "-wdir", "/", "-hosts", hosts, "-n", count, "/bin/sh",
			 "-c", run_rank, NULL };
	sigset_t none;

	for (int r = 0; r < d->file.devices; r++)
		snprintf(hosts + strlen(hosts), sizeof(hosts) - strlen(hosts), "%srank%d",
			 r ? "," : "", r);
	snprintf(count, sizeof(count), "%d", d->file.devices);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	dup2(output, 1);
	execv(args[0], args);
	fprintf(stderr, "cannot run '%s': %s\n", args[0], strerror(errno));
	_exit(127);
}

static void start_launcher(struct door *d)
{
	int pipes[2];

	if (pipe2(pipes, O_CLOEXEC))
		LH_BUG("no pipe: %s", strerror(errno));
	d->pid = fork();
	if (d->pid < 0)
		LH_BUG("the door cannot fork: %s", strerror(errno));
	if (!d->pid)
		become_launcher(d, pipes[1]);
	close(pipes[1]);
	d->output = pipes[0];
	d->started = true;
}

/* "HYDRA_LAUNCH: PROXY ARGS... --proxy-id N " is for rank N: it has its own PROXY. */
static void hand_out(struct door *d, char *command)
{
	json_t *args = json_array();
	char *at, *word = strtok_r(command, " ", &at), *last = NULL;
	struct guest *g;
	int ranks, place;

	while ((word = strtok_r(NULL, " ", &at))) {
		json_array_append_new(args, json_string(word));
		last = word;
	}
	g = last ? seat_of(d, atoi(last)) : NULL;
	if (!g) {
		json_decref(args);
		return;
	}
	place = place_of(d, g, &ranks);
	lh_sealed_send_take(&g->line,
			    json_pack("{s:s, s:o, s:i, s:i}", "m", "go", "proxy", args,
				      "local_rank", place, "host_ranks", ranks));
}

static void read_launcher(struct door *d)
{
	static const char launch[] = "HYDRA_LAUNCH: ", end[] = "HYDRA_LAUNCH_END";
	char data[4096], *line;
	ssize_t n = read(d->output, data, sizeof(data));
	size_t bytes;

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) {
		close(d->output);
		d->output = -1;
		return;
	}
	lh_frame_push(&d->lines, data, (size_t)n);
	while (lh_frame_next(&d->lines, &line, &bytes) > 0)
		if (!strncmp(line, launch, strlen(launch)))
			hand_out(d, line + strlen(launch));
		else if (strcmp(line, end))
			printf("%s\n", line); /* of a rank */
	fflush(stdout);
}

/* ---- guests ---------------------------------------------------------------- */

static void open_door(struct door *d)
{
	int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);
	struct guest *g;

	if (fd < 0)
		return;
	if (d->count == GUESTS_MAX) {
		close(fd);
		return;
	}
	g = lh_calloc(1, sizeof(*g));
	g->rank = -1;
	g->came_us = lh_clock_us();
	lh_address_keep_alive(fd);
	lh_address_peer(fd, g->from, sizeof(g->from));
	lh_sealed_init(&g->line, fd, true, d->file.token);
	d->guests[d->count++] = g;
}

static void end_all(struct door *d)
{
	d->told_to_end = true;
	if (d->pid)
		kill(d->pid, SIGTERM);
}

static void hear(struct door *d, struct guest *g, const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));

	if (!name)
		name = "";
	if (g->rank < 0)
		take_seat(d, g, m);
	else if (!strcmp(name, "fault"))
		take_fault(d, g, m);
	else if (!strcmp(name, "left"))
		g->has_left = true;
	else if (!strcmp(name, "term"))
		end_all(d);
}

static void listen_to(struct door *d, struct guest *g)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *m = NULL;
	int rc = 0;

	lh_sealed_read(&g->line);
	while (!g->is_going && (rc = lh_sealed_next(&g->line, &m, &err)) > 0) {
		hear(d, g, m);
		json_decref(m);
	}
	if (rc < 0) /* sealed with our token, which tells him that his is another */
		refuse(g, false, &err);
	else if (g->line.is_over)
		lose(d, g);
}

static void show_out(struct door *d)
{
	int64_t now_us = lh_clock_us();

	for (int i = 0; i < d->count; i++) {
		struct guest *g = d->guests[i];
		bool mute = g->rank < 0 && now_us - g->came_us > STRANGER_MS * 1000;

		if (!g->is_going && !g->line.is_over && !mute)
			continue;
		if (!g->is_going)
			lose(d, g);
		lh_sealed_release(&g->line);
		free(g);
		d->guests[i--] = d->guests[--d->count];
	}
}

/* ---- the whole ------------------------------------------------------------- */

static void on_signal(struct door *d)
{
	struct signalfd_siginfo s;

	if (read(d->signals, &s, sizeof(s)) != sizeof(s))
		return;
	if (s.ssi_signo == SIGTERM)
		end_all(d);
	if (d->pid && waitpid(d->pid, &d->status, WNOHANG) == d->pid) {
		d->pid = 0;
		d->reaped_us = lh_clock_us();
	}
}

static bool is_over(const struct door *d)
{
	if (!d->started)
		return d->told_to_end;
	if (d->pid)
		return false;
	if (d->output >= 0)
		return lh_clock_us() - d->reaped_us > LEAVE_MS * 1000;
	for (int i = 0; i < d->count; i++)
		if (d->guests[i]->rank >= 0 && !d->guests[i]->has_left)
			return lh_clock_us() - d->reaped_us > LEAVE_MS * 1000;
	return true;
}

static void wait_at_the_door(struct door *d)
{
	struct pollfd p[3 + GUESTS_MAX];
	int n = d->count;

	p[0] = (struct pollfd){ .fd = d->signals, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = d->listener, .events = POLLIN };
	p[2] = (struct pollfd){ .fd = d->output, .events = POLLIN };
	for (int i = 0; i < n; i++)
		p[3 + i] = (struct pollfd){ .fd = d->guests[i]->line.fd, .events = POLLIN };
	if (poll(p, (nfds_t)(3 + n), LOOK_MS) < 0)
		return;
	for (int i = 0; i < n; i++) /* first: what they tell explains the launcher's end */
		if (p[3 + i].revents)
			listen_to(d, d->guests[i]);
	if (p[2].revents)
		read_launcher(d);
	if (p[0].revents)
		on_signal(d);
	if (p[1].revents)
		open_door(d);
}

static void say_goodbye(struct door *d)
{
	char *path = lh_asprintf("%s/" LH_ATTEMPT_DONE, d->dir);
	bool done = d->started && lh_fs_exists(path);

	for (int i = 0; i < d->count; i++) {
		struct guest *g = d->guests[i];

		if (g->rank >= 0)
			lh_sealed_send_take(&g->line, json_pack("{s:s, s:b}", "m", "end",
								"done", done));
		lh_sealed_release(&g->line);
		free(g);
	}
	d->count = 0;
	free(path);
}

static int begin(struct door *d, struct lh_err *err)
{
	char *path = lh_asprintf("%s/../" LH_JOB_JOIN, d->dir);
	sigset_t set;
	int rc = lh_joinfile_read(&d->file, path, err);

	if (!rc)
		rc = lh_json_read(d->dir, LH_ATTEMPT_START, FILE_MAX_BYTES, &d->start, err);
	if (!rc)
		rc = lh_json_read(d->dir, "../" LH_JOB_SPEC, FILE_MAX_BYTES, &d->spec,
				  err);
	if (!rc)
		d->listener = lh_address_listen(d->file.address, err);
	free(path);
	if (rc || d->listener < 0)
		return rc ? rc : d->listener;
	d->attempt = json_integer_value(json_object_get(d->start, "attempt"));
	d->token = json_object_get(d->start, "token");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	d->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signals < 0)
		LH_BUG("no signalfd: %s", strerror(errno));
	lh_info("waiting for %d ranks at %s: lhworker-%s --join .../" LH_JOB_JOIN,
		d->file.devices, d->file.address,
		d->file.device == LH_DEVICE_CUDA ? "cuda" : "cpu");
	return 0;
}

/* As the launcher has ended, so that lhd hears of it. */
static int end_like(const struct door *d)
{
	if (!d->started)
		return 0;
	if (d->was_killed)
		return 1;
	if (WIFSIGNALED(d->status)) {
		sigset_t none;

		sigemptyset(&none);
		signal(WTERMSIG(d->status), SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		raise(WTERMSIG(d->status));
	}
	return WEXITSTATUS(d->status);
}

int lh_door_run(const char *dir, const char *launcher, struct lh_err *err)
{
	struct door d = { .dir = dir, .launcher = launcher, .listener = -1, .signals = -1,
			  .output = -1 };
	int rc;

	lh_frame_init(&d.lines, LINE_MAX_BYTES);
	rc = begin(&d, err);
	while (!rc && !is_over(&d)) {
		wait_at_the_door(&d);
		show_out(&d);
		if (!d.started && !d.told_to_end && !missing(&d))
			start_launcher(&d);
	}
	say_goodbye(&d);
	if (d.output >= 0)
		close(d.output);
	if (d.listener >= 0)
		close(d.listener);
	if (d.signals >= 0)
		close(d.signals);
	lh_frame_release(&d.lines);
	json_decref(d.start);
	json_decref(d.spec);
	return rc ? rc : end_like(&d);
}
