/* join.c: see join.h. */
#include "join/join.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "jobs/launch.h"
#include "join/joinfile.h"
#include "join/launcher.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"

#define PROXY "hydra_pmi_proxy"

enum { ANSWER_MS = 10000, AGAIN_MS = 200, HOST_BYTES = 65, NUMBER_BYTES = 12,
       FILE_MAX_BYTES = 1 << 20 };

struct join {
	const char *device;
	struct lh_joinfile file;
	struct lh_standing me;
	char *proxy, *worker;   /* programs */
	struct lh_sealed line;
	bool is_dialled;
	char *dir;              /* of the attempt, or the rank's own */
	char *own;              /* what is removed at the end, or NULL */
	int signals, faults;    /* signalfd; inotify of the own directory, or -1 */
	int pid;                /* the proxy's; 0: not started, or reaped */
	bool started, told_to_end, is_over, is_done;
};

/* ---- coming in ------------------------------------------------------------- */

/* 1 and the door's next message, 0: there is none in time. */
static int hear(struct join *j, json_t **m, struct lh_err *err)
{
	int64_t end_us = lh_clock_us() + ANSWER_MS * 1000;
	struct pollfd p = { .fd = j->line.fd, .events = POLLIN };
	bool greeted = lh_sealed_is_greeted(&j->line);
	int rc;

	while (!(rc = lh_sealed_next(&j->line, m, err)) && !j->line.is_over &&
	       lh_clock_us() < end_us && lh_sealed_is_greeted(&j->line) == greeted)
		if (poll(&p, 1, AGAIN_MS) > 0)
			lh_sealed_read(&j->line);
	return rc;
}

static void ask(struct join *j)
{
	char host[HOST_BYTES] = "";

	gethostname(host, sizeof(host) - 1);
	lh_sealed_send_take(&j->line,
			    json_pack("{s:s, s:i, s:i, s:i, s:s, s:s, s:s}", "m", "join",
				      "rank", j->me.rank, "size", j->me.size, "local_rank",
				      j->me.local_rank, "host", host, "device", j->device,
				      "version", LH_VERSION));
}

static int refused(const json_t *m, struct lh_err *err)
{
	const char *text = json_string_value(json_object_get(m, "text"));
	const char *hint = json_string_value(json_object_get(m, "hint"));
	bool again = json_is_true(json_object_get(m, "again"));

	lh_err_set(err, again ? LH_EBUSY : LH_EINVAL, "%s", text ? text : "refused");
	lh_err_hint(err, "%s", hint ? hint : "");
	return err->code;
}

/* What the door's answer is worth. *seat is the caller's. */
static int ask_for_seat(struct join *j, json_t **seat, struct lh_err *err)
{
	const char *name;
	int rc = hear(j, seat, err);

	if (!rc && lh_sealed_is_greeted(&j->line)) {
		ask(j);
		rc = hear(j, seat, err);
	}
	if (rc == LH_EDENIED) {
		lh_err_set(err, rc, "the token is not that of the job there");
		return lh_err_hint(err, "the join file is another job's, or of another lhd: "
				   "STATE/jobs/ID/" LH_JOB_JOIN " of this one");
	}
	if (rc < 0)
		return rc;
	if (!rc)
		return lh_err_set(err, LH_EUNREACHABLE, "it does not answer");
	name = json_string_value(json_object_get(*seat, "m"));
	if (name && !strcmp(name, "seat"))
		return 0;
	rc = refused(*seat, err);
	json_decref(*seat);
	*seat = NULL;
	return rc;
}

static int dial(struct join *j, json_t **seat, struct lh_err *err)
{
	int fd = lh_address_connect(j->file.address, err), rc;

	if (fd < 0)
		return fd;
	lh_address_keep_alive(fd);
	lh_sealed_init(&j->line, fd, false, j->file.token);
	rc = ask_for_seat(j, seat, err);
	if (rc) {
		lh_sealed_release(&j->line);
		return lh_err_prefix(err, "joining job %lld at '%s'", (long long)j->file.job,
				     j->file.address);
	}
	j->is_dialled = true;
	return 0;
}

/* The door may not be open yet, or that of the attempt before may still be. */
static int come_in(struct join *j, int wait_s, json_t **seat, struct lh_err *err)
{
	int64_t end_us = lh_clock_us() + (int64_t)wait_s * 1000000;
	bool told = false;
	int rc;

	while ((rc = dial(j, seat, err)) && (rc == LH_EUNREACHABLE || rc == LH_EBUSY) &&
	       lh_clock_us() < end_us) {
		if (!told)
			lh_info("rank %d waits: %s", j->me.rank, err->text);
		told = true;
		usleep(AGAIN_MS * 1000);
	}
	if (rc == LH_EUNREACHABLE)
		lh_err_hint(err, "the job waits in its queue, or is over ('lhctl show'), or "
			    "that address cannot be reached from here");
	return rc;
}

/* ---- where it works -------------------------------------------------------- */

static bool is_here(const char *dir, const char *token)
{
	json_t *start;
	const char *own;
	bool same;

	lh_json_read(dir, LH_ATTEMPT_START, FILE_MAX_BYTES, &start, NULL);
	own = json_string_value(json_object_get(start, "token"));
	same = own && !strcmp(own, token);
	json_decref(start);
	return same;
}

static int write_json(const char *dir, const char *name, const json_t *json,
		      struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	char *text = json_dumps(json, JSON_INDENT(1));
	int rc = lh_fs_write_atomic(path, text, strlen(text), err);

	free(text);
	free(path);
	return rc;
}

/* As an attempt's, as far as a rank but 0 looks at it. */
static int make_own(struct join *j, const json_t *spec, struct lh_err *err)
{
	const char *tmp = getenv("TMPDIR");
	json_t *start = json_object();
	int rc;

	j->own = lh_asprintf("%s/lighthouse-rank-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(j->own)) {
		json_decref(start);
		return lh_err_set(err, LH_EIO, "cannot make '%s': %s", j->own,
				  strerror(errno));
	}
	j->dir = lh_asprintf("%s/attempt", j->own);
	rc = lh_fs_mkdirs(j->dir, err);
	if (!rc)
		rc = write_json(j->own, LH_JOB_SPEC, spec, err);
	if (!rc)
		rc = write_json(j->dir, LH_ATTEMPT_START, start, err);
	json_decref(start);
	if (rc)
		return rc;
	j->faults = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (j->faults < 0 || inotify_add_watch(j->faults, j->dir, IN_CLOSE_WRITE) < 0)
		return lh_err_set(err, LH_EIO, "cannot watch '%s': %s", j->dir,
				  strerror(errno));
	return 0;
}

static int settle(struct join *j, const json_t *seat, struct lh_err *err)
{
	const char *dir = json_string_value(json_object_get(seat, "dir"));
	const char *token = json_string_value(json_object_get(seat, "token"));
	const json_t *spec = json_object_get(seat, "spec");
	int left = (int)json_integer_value(json_object_get(seat, "missing"));

	if (!dir || !token || !spec)
		return lh_err_set(err, LH_EPROTO, "what the door said is not understood");
	lh_info("rank %d of %d has a seat in job %lld; %d to come", j->me.rank, j->me.size,
		(long long)j->file.job, left);
	if (is_here(dir, token)) {
		j->dir = lh_strdup(dir);
		return 0;
	}
	if (j->me.rank)
		return make_own(j, spec, err);
	lh_err_set(err, LH_EINVAL, "rank 0 is not on lhd's host, or not of lhd's user: there "
		   "is no '%.200s'", dir);
	return lh_err_hint(err, "the launcher's first host has to be the one that lhd runs "
			   "on");
}

/* ---- the proxy ------------------------------------------------------------- */

static void set_number(const char *name, int n)
{
	char text[NUMBER_BYTES];

	snprintf(text, sizeof(text), "%d", n);
	setenv(name, text, 1);
}

/* A launcher's own process manager is not the one that the rank is to speak to. */
static bool is_launchers(const char *variable)
{
	static const char *const begins[] = { "PMI", "HYD", "MPI_LOCAL" };

	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++)
		if (!strncmp(variable, begins[i], strlen(begins[i])))
			return true;
	return false;
}

static void forget_launcher(void)
{
	char **e = environ;

	while (*e) {
		char *name = lh_asprintf("%.*s", (int)strcspn(*e, "="), *e);

		if (is_launchers(name))
			unsetenv(name); /* the next one takes its place */
		else
			e++;
		free(name);
	}
}

/* In the child: what the rank finds, which has this environment. A GPU that its launcher
 * bound it to is the only one it sees, and the batch system's to keep from others. */
static void set_environment(const struct join *j, const json_t *go)
{
	int local = (int)json_integer_value(json_object_get(go, "local_rank"));
	int ranks = (int)json_integer_value(json_object_get(go, "host_ranks"));
	const char *gpus = getenv("CUDA_VISIBLE_DEVICES");
	bool bound = gpus && *gpus && !strchr(gpus, ','); /* to one, by its launcher */
	char net[LH_INTERFACE_BYTES], exactly[LH_INTERFACE_BYTES + 1] = "";

	forget_launcher();
	setenv("LH_JOIN_WORKER", j->worker, 1);
	setenv("LH_JOIN_DIR", j->dir, 1);
	set_number("LH_JOIN_HOST_RANKS", ranks);
	set_number("LH_JOIN_DEVICE", bound ? 0 : local);
	set_number("LH_JOIN_DEVICES", bound ? 1 : ranks > local ? ranks : local + 1);
	lh_address_interface(j->line.fd, net);
	if (*net)
		snprintf(exactly, sizeof(exactly), "=%s", net);
	if (*net && !getenv("UCX_TLS"))
		setenv("UCX_NET_DEVICES", net, 0);
	setenv("UCX_TLS", "self,tcp", 0);
	setenv("NCCL_SOCKET_IFNAME", exactly, 0); /* "": NCCL looks for one itself */
}

/* The door's words, with this host's way to Hydra. */
static char **proxy_args(const struct join *j, const json_t *go)
{
	const json_t *words = json_object_get(go, "proxy"), *word;
	char **args = lh_calloc(json_array_size(words) + 2, sizeof(*args)), peer[16];
	bool is_port = false;
	size_t i;

	lh_address_peer(j->line.fd, peer, sizeof(peer));
	args[0] = j->proxy;
	json_array_foreach (words, i, word) {
		const char *text = json_string_value(word);
		const char *port = text ? strrchr(text, ':') : NULL;

		args[i + 1] = lh_strdup(text ? text : "");
		if (is_port && port) {
			free(args[i + 1]);
			args[i + 1] = lh_asprintf("%s%s", peer, port);
		}
		is_port = text && !strcmp(text, "--control-port");
	}
	return args;
}

static void start_proxy(struct join *j, const json_t *go)
{
	char **args = proxy_args(j, go);
	sigset_t none;

	j->started = true;
	j->pid = fork();
	if (j->pid < 0)
		LH_BUG("a rank cannot fork: %s", strerror(errno));
	if (!j->pid) {
		setpgid(0, 0); /* a terminal's ^C is this process's */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		set_environment(j, go);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		execv(args[0], args);
		fprintf(stderr, "cannot run '%s': %s\n", args[0], strerror(errno));
		_exit(127);
	}
	for (int i = 1; args[i]; i++)
		free(args[i]);
	free(args);
}

/* ---- while it trains ------------------------------------------------------- */

static void tell_fault(struct join *j)
{
	char *path = lh_asprintf("%s/" LH_ATTEMPT_FAULT, j->dir), *text;
	char events[4096];
	size_t bytes;

	while (j->faults >= 0 && read(j->faults, events, sizeof(events)) > 0)
		if (!lh_fs_read(path, FILE_MAX_BYTES, &text, &bytes, NULL)) {
			lh_sealed_send_take(&j->line, json_pack("{s:s, s:s}", "m", "fault",
								"text", text));
			free(text);
		}
	free(path);
}

static void on_message(struct join *j, const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));

	if (name && !strcmp(name, "go") && !j->started) {
		start_proxy(j, m);
	} else if (name && !strcmp(name, "end")) {
		j->is_over = true;
		j->is_done = json_is_true(json_object_get(m, "done"));
	}
}

/* Before all have come it goes alone; then all are to end, and a second one is for it. */
static void on_term(struct join *j)
{
	if (!j->started || j->told_to_end)
		j->is_over = true;
	else
		lh_sealed_send_take(&j->line, json_pack("{s:s}", "m", "term"));
	j->told_to_end = true;
}

static void on_signal(struct join *j)
{
	struct signalfd_siginfo s;
	int status;

	if (read(j->signals, &s, sizeof(s)) != sizeof(s))
		return;
	if (s.ssi_signo != SIGCHLD)
		on_term(j);
	if (!j->pid || waitpid(j->pid, &status, WNOHANG) != j->pid)
		return;
	j->pid = 0;
	tell_fault(j);
	lh_sealed_send_take(&j->line, json_pack("{s:s}", "m", "left"));
}

/* Those that are there: the first may have come with the seat. */
static void take_messages(struct join *j)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *m;
	int rc;

	while ((rc = lh_sealed_next(&j->line, &m, &err)) > 0) {
		on_message(j, m);
		json_decref(m);
	}
	if (rc < 0)
		lh_log_err(LH_LOG_ERROR, "the line to the door", &err);
	if (rc < 0 || j->line.is_over)
		j->is_over = true;
}

static int stay(struct join *j, struct lh_err *err)
{
	struct pollfd p[3] = { { .fd = j->signals, .events = POLLIN },
			       { .fd = j->line.fd, .events = POLLIN },
			       { .fd = j->faults, .events = POLLIN } };

	for (take_messages(j); !j->is_over;) {
		if (poll(p, 3, -1) < 0)
			continue;
		if (p[2].revents)
			tell_fault(j);
		if (p[1].revents) {
			lh_sealed_read(&j->line);
			take_messages(j);
		}
		if (p[0].revents)
			on_signal(j);
	}
	if (j->pid)
		kill(j->pid, SIGKILL); /* what it started ends with it */
	if (j->is_done)
		return 0;
	if (!j->started)
		lh_err_set(err, LH_EWORKER, "job %lld: it ended before all ranks had come",
			   (long long)j->file.job);
	else
		lh_err_set(err, LH_EWORKER, "job %lld: the attempt is over, and the job is "
			   "not done", (long long)j->file.job);
	return lh_err_hint(err, "'lhctl show %lld' tells why; while it goes on, join again",
			   (long long)j->file.job);
}

/* ---- the whole ------------------------------------------------------------- */

static int find_programs(struct join *j, struct lh_err *err)
{
	char *dir;

	j->worker = realpath("/proc/self/exe", NULL);
	if (!j->worker)
		return lh_err_set(err, LH_EIO, "cannot tell which program this is: %s",
				  strerror(errno));
	dir = lh_asprintf("%.*s", (int)(strrchr(j->worker, '/') - j->worker), j->worker);
	j->proxy = lh_launch_find(PROXY, dir);
	free(dir);
	if (j->proxy)
		return 0;
	lh_err_set(err, LH_EUNSUPPORTED, "there is no " PROXY " here");
	return lh_err_hint(err, "on Debian: apt-get install mpich");
}

/* A script's MASTER_ADDR, where there is one, means what the file means. */
static int check_master(const struct join *j, struct lh_err *err)
{
	const char *master = getenv("MASTER_ADDR"), *port = strchr(j->file.address, ':');
	struct sockaddr_in there, said;
	char *address;
	int rc;

	if (!master || strcmp(j->me.launcher, "plain"))
		return 0;
	address = lh_asprintf("%s%s", master, port);
	rc = lh_address_resolve(&said, address, err);
	free(address);
	if (rc)
		return lh_err_prefix(err, "MASTER_ADDR");
	rc = lh_address_resolve(&there, j->file.address, err);
	if (rc || there.sin_addr.s_addr == said.sin_addr.s_addr)
		return rc;
	lh_err_set(err, LH_EINVAL, "MASTER_ADDR is '%.100s', and the job's ranks meet at "
		   "'%s'", master, j->file.address);
	return lh_err_hint(err, "it may be left out; or the job's join: is another host's");
}

static sigset_t signals_taken(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	return set;
}

static int prepare(struct join *j, const char *file, struct lh_err *err)
{
	sigset_t set = signals_taken();
	int rc = lh_joinfile_read(&j->file, file, err);

	if (!rc)
		rc = lh_launcher_find(&j->me, environ, err);
	if (!rc)
		rc = check_master(j, err);
	if (!rc)
		rc = find_programs(j, err);
	if (rc)
		return rc;
	j->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (j->signals < 0)
		LH_BUG("no signalfd: %s", strerror(errno));
	signal(SIGTERM, SIG_DFL); /* until there is something to be told */
	return 0;
}

static void release(struct join *j)
{
	if (j->pid)
		waitpid(j->pid, NULL, 0);
	if (j->is_dialled)
		lh_sealed_release(&j->line);
	if (j->signals >= 0)
		close(j->signals);
	if (j->faults >= 0)
		close(j->faults);
	if (j->own)
		lh_fs_remove_tree(j->own, NULL);
	free(j->own);
	free(j->dir);
	free(j->proxy);
	free(j->worker);
}

int lh_join_run(const char *file, int wait_s, const char *device, struct lh_err *err)
{
	struct join j = { .device = device, .signals = -1, .faults = -1 };
	sigset_t set = signals_taken();
	json_t *seat = NULL;
	int rc = prepare(&j, file, err);

	if (!rc)
		rc = come_in(&j, wait_s, &seat, err);
	if (!rc) {
		sigprocmask(SIG_BLOCK, &set, NULL);
		rc = settle(&j, seat, err);
	}
	if (!rc)
		rc = stay(&j, err);
	json_decref(seat);
	release(&j);
	return rc;
}

/* ---- the rank -------------------------------------------------------------- */

static int number_of(const char *name, int otherwise)
{
	const char *text = getenv(name);

	return text ? atoi(text) : otherwise;
}

void lh_joined_find(struct lh_joined *j, int rank, int size)
{
	j->host_ranks = number_of("LH_JOIN_HOST_RANKS", size);
	j->device = number_of("LH_JOIN_DEVICE", rank);
	j->devices = number_of("LH_JOIN_DEVICES", size);
}

int lh_joined_code(int code)
{
	if (!getenv("LH_JOIN_DIR"))
		return code;
	fflush(NULL);
	if (code)
		raise(SIGKILL);
	_exit(code);
}
