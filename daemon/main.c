/* main.c: lhd: options, the state directory, start and stop.
 *
 * What it owns comes up in one order and goes down in the other:
 *
 *   state directory (lock, generation) -> store -> jobs -> control socket and page
 *
 * SIGTERM, SIGINT and daemon.stop end it: no new connections, every worker is
 * asked to checkpoint and stop, then the parts close one after the other and the
 * loop must be empty. A second signal ends it at once and leaves the workers to
 * the next lhd. Any other death of lhd leaves them too: they go on by themselves.
 *
 * daemon.restart closes the parts without asking the workers, and then the process
 * becomes the next lhd, of whatever version lies at its path by then: the same pid
 * to its service manager, and whoever waits for it.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/failpoint.h"
#include "base/listener.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/oom.h"
#include "base/reap.h"
#include "base/statedir.h"
#include "control/access.h"
#include "control/control.h"
#include "jobs/jobs.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"
#include "store/store.h"

enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_USAGE = 2 };

#define SLOTS_MAX 64
#define STOP_GRACE_MAX_MS 86400000
#define KILL_GRACE_MS 10000
#define HANG_MAX_MS 86400000

struct options {
	const char *state; /* NULL: the default */
	int slots;
	int64_t stop_grace_ms, hang_ms;
	int page_port;     /* 0: any */
	struct lh_access access;
};

struct lhd {
	struct lh_statedir dir;
	uv_loop_t loop;
	uv_signal_t signals[2];
	uv_timer_t watchdog, reaper;
	struct lh_store *store;     /* NULL when not open */
	struct lh_jobs *jobs;
	struct lh_control *control;
	char program[PATH_MAX]; /* its own path, when it started */
	bool stopping;
	bool restarting;        /* and stopping */
};

/* The first signal that came while lhd cannot act on one, starting or becoming the
 * next; 0: none. */
static volatile sig_atomic_t early;

/* ---- options -------------------------------------------------------------- */

static void print_help(void)
{
	printf("usage: lhd [options]\n"
	       "\n"
	       "Queues, starts and watches training jobs; lhctl talks to it.\n"
	       "\n"
	       "  --state DIR         where everything is kept: sockets, database, jobs\n"
	       "                      (default: /var/lib/lighthouse for root, else\n"
	       "                      $XDG_STATE_HOME/lighthouse or\n"
	       "                      ~/.local/state/lighthouse)\n"
	       "  --slots N           jobs that may run at once, 1 to %d (1)\n"
	       "  --allow WHO=ROLE    let USER or @GROUP connect too, to 'read' or also to\n"
	       "                      'steer' jobs; may be given again. Submitting is for\n"
	       "                      lhd's own user and root\n"
	       "  --page-port N       port of the page, on 127.0.0.1 (the one of last time, if\n"
	       "                      it is free, else any); 'lhctl dashboard' opens it\n"
	       "  --no-page           serve no page\n"
	       "  --log-level LEVEL   debug, info, warn or error (info)\n"
	       "  --stop-grace-ms N   time a worker has to checkpoint when it is asked\n"
	       "                      to stop, before it gets SIGTERM (30000)\n"
	       "  --hang-ms N         a worker without progress for that long, and for five\n"
	       "                      times a step's time, is killed and started again;\n"
	       "                      60 times that long while it starts, saves or\n"
	       "                      evaluates; 0 waits for ever (10000)\n"
	       "  --version           print the version\n"
	       "  -h, --help          print this\n"
	       "\n"
	       "SIGTERM or SIGINT: every worker writes a checkpoint and stops, then lhd\n"
	       "ends; the next lhd goes on with the jobs. A worker that has not ended\n"
	       "after its time and %d s more is killed. A second signal ends lhd at once\n"
	       "and leaves the workers training. 'lhctl restart' leaves them too.\n"
	       "\n"
	       "Exit status: 0 stopped as asked, 1 error, 2 wrong usage.\n"
	       "\n"
	       "Examples:\n"
	       "  lhd &\n"
	       "  lhd --state /data/lighthouse --slots 2\n",
	       SLOTS_MAX, KILL_GRACE_MS / 1000);
}

static _Noreturn void die_usage(const char *option, const char *value,
				const char *want)
{
	char safe[256];

	fprintf(stderr, "error: %s is '%s'; it must be %s\n"
			"hint: lhd -h shows the options\n",
		option, lh_escape(safe, sizeof(safe), value), want);
	exit(EXIT_USAGE);
}

static int64_t parse_int(const char *option, const char *value, int64_t min,
			 int64_t max)
{
	char want[64], *end;
	long long v;

	errno = 0;
	v = strtoll(value, &end, 10);
	if (errno || end == value || *end || v < min || v > max) {
		snprintf(want, sizeof(want), "a number from %lld to %lld",
			 (long long)min, (long long)max);
		die_usage(option, value, want);
	}
	return v;
}

static enum lh_log_level parse_level(const char *value)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	int i;

	for (i = 0; i < 4; i++)
		if (!strcmp(names[i], value))
			return (enum lh_log_level)i;
	die_usage("--log-level", value, "debug, info, warn or error");
}

static void allow(struct lh_access *access, const char *value)
{
	struct lh_err err = LH_ERR_INIT;

	if (!lh_access_allow(access, value, &err))
		return;
	fprintf(stderr, "error: %s\nhint: %s\n", err.text,
		*err.hint ? err.hint : "lhd -h shows the options");
	exit(EXIT_USAGE);
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option table[] = {
		{ "state", required_argument, NULL, 's' },
		{ "slots", required_argument, NULL, 'n' },
		{ "allow", required_argument, NULL, 'a' },
		{ "page-port", required_argument, NULL, 'p' },
		{ "no-page", no_argument, NULL, 'P' },
		{ "log-level", required_argument, NULL, 'l' },
		{ "stop-grace-ms", required_argument, NULL, 'g' },
		{ "hang-ms", required_argument, NULL, 'H' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*o = (struct options){ .slots = 1, .stop_grace_ms = 30000, .hang_ms = 10000 };
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		switch (c) {
		case 's':
			o->state = optarg;
			break;
		case 'n':
			o->slots = (int)parse_int("--slots", optarg, 1, SLOTS_MAX);
			break;
		case 'a':
			allow(&o->access, optarg);
			break;
		case 'p':
			o->page_port = (int)parse_int("--page-port", optarg, 0, 65535);
			break;
		case 'P':
			o->page_port = LH_CONTROL_NO_PAGE;
			break;
		case 'l':
			lh_log_set_level(parse_level(optarg));
			break;
		case 'g':
			o->stop_grace_ms = parse_int("--stop-grace-ms", optarg, 0,
						     STOP_GRACE_MAX_MS);
			break;
		case 'H':
			o->hang_ms = parse_int("--hang-ms", optarg, 0, HANG_MAX_MS);
			break;
		case 'v':
			printf("lhd %s\n", LH_VERSION);
			exit(EXIT_OK);
		case 'h':
			print_help();
			exit(EXIT_OK);
		default:
			fprintf(stderr, "hint: lhd -h shows the options\n");
			exit(EXIT_USAGE);
		}
	}
	if (optind < argc)
		die_usage("an argument", argv[optind], "an option");
}

/* ---- signals -------------------------------------------------------------- */

static void on_early_signal(int number)
{
	if (early)
		_exit(EXIT_ERROR);
	early = number;
}

static const int ending_signals[2] = { SIGTERM, SIGINT };

/* Until the loop turns. */
static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_early_signal, .sa_flags = SA_RESTART };

	for (int i = 0; i < 2; i++)
		sigaction(ending_signals[i], &action, NULL);
}

/* SIG_BLOCK: what comes from here on is for the next lhd, which lets it come. */
static void mask_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (int i = 0; i < 2; i++)
		sigaddset(&set, ending_signals[i]);
	sigprocmask(how, &set, NULL);
}

/* ---- stopping ------------------------------------------------------------- */

static void on_store_closed(void *arg)
{
	struct lhd *d = arg;
	int i;

	d->store = NULL;
	for (i = 0; i < 2; i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
	catch_signals();
	uv_close((uv_handle_t *)&d->watchdog, NULL);
	uv_close((uv_handle_t *)&d->reaper, NULL);
}

static void on_jobs_closed(void *arg)
{
	struct lhd *d = arg;

	d->jobs = NULL;
	if (d->store)
		lh_store_close(d->store, on_store_closed, d);
	else
		on_store_closed(d);
}

static void on_control_closed(void *arg)
{
	struct lhd *d = arg;

	if (d->jobs)
		lh_jobs_close(d->jobs, on_jobs_closed, d);
	else
		on_jobs_closed(d);
}

/* Closes what is open, the last opened first. */
static void shut_down(void *arg)
{
	struct lhd *d = arg;
	struct lh_control *control = d->control;

	if (d->jobs)
		lh_jobs_give_up_requests(d->jobs);
	/* From here on nobody listens to events. */
	d->control = NULL;
	if (control)
		lh_control_close(control, on_control_closed, d);
	else
		on_control_closed(d);
}

static void stop(void *arg)
{
	struct lhd *d = arg;

	if (d->stopping)
		return;
	d->stopping = true;
	lh_notify("STOPPING=1");
	lh_info("stopping: %d workers are asked to checkpoint",
		lh_jobs_workers(d->jobs));
	lh_control_stop_accepting(d->control);
	lh_jobs_drain(d->jobs, shut_down, d);
}

static void restart(void *arg)
{
	struct lhd *d = arg;

	if (d->stopping)
		return;
	d->stopping = d->restarting = true;
	lh_info("restarting: %d workers go on", lh_jobs_workers(d->jobs));
	shut_down(d);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct lhd *d = handle->data;

	if (d->restarting) {
		on_early_signal(number);
		return;
	}
	if (d->stopping) {
		lh_warn("%s again: ending at once, workers are left alone",
			strsignal(number));
		_exit(EXIT_ERROR);
	}
	lh_info("%s", strsignal(number));
	stop(d);
}

/* ---- starting ------------------------------------------------------------- */

static void on_event(void *arg, const struct lh_event *ev)
{
	struct lhd *d = arg;

	if (d->control)
		lh_control_publish(d->control, ev);
}

/* Where lhd itself lies; the workers lie beside it. */
static int find_program(char *out, size_t bytes, struct lh_err *err)
{
	ssize_t n = readlink("/proc/self/exe", out, bytes - 1);

	if (n < 0)
		return lh_err_set(err, LH_EIO, "cannot read '/proc/self/exe': %s",
				  strerror(errno));
	out[n] = '\0';
	return 0;
}

/* A loop that turns is a daemon that serves. */
static void on_watchdog(uv_timer_t *timer)
{
	(void)timer;
	lh_notify("WATCHDOG=1");
}

static void on_reaper(uv_timer_t *timer)
{
	(void)timer;
	lh_reap_orphans();
}

/* Things that would only turn up after workers have been adopted. */
static int check_state_path(const char *state, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", state, LH_STATE_CONTROL_SOCKET);
	json_t *text = json_string(path);
	int rc = lh_listener_check_path(path, err);

	if (!text)
		rc = lh_err_set(err, LH_EINVAL,
				"the path of state directory '%s' is not UTF-8", state);
	json_decref(text);
	free(path);
	return rc;
}

static int open_state(struct lhd *d, const struct options *o, struct lh_err *err)
{
	char *path = o->state ? lh_strdup(o->state) : lh_statedir_default(err);
	int rc;

	if (!path)
		return err->code;
	/* Others must be able to come to the socket, and to nothing else. */
	rc = lh_statedir_open(&d->dir, path, o->access.count ? 0711 : 0700, err);
	free(path);
	return rc ? rc : check_state_path(d->dir.path, err);
}

static int open_parts(struct lhd *d, const struct options *o, struct lh_err *err)
{
	int rc = find_program(d->program, sizeof(d->program), err);
	char *bin_dir = lh_strdup(d->program), *db, *oom_file = lh_oom_find();
	struct lh_control_config control = {
		.state_dir = d->dir.path,
		.bin_dir = bin_dir,
		.generation = d->dir.generation,
		.access = &o->access,
		.page_port = o->page_port,
		.stop = stop,
		.restart = restart,
		.arg = d,
	};
	struct lh_jobs_config jobs = {
		.state_dir = d->dir.path,
		.bin_dir = bin_dir,
		.slots = o->slots,
		.stop_grace_ms = o->stop_grace_ms,
		.kill_grace_ms = KILL_GRACE_MS,
		.hang_ms = o->hang_ms,
		.generation = d->dir.generation,
		.proto = LH_PROTO_VERSION,
		.oom_file = oom_file,
	};

	if (!rc)
		*strrchr(bin_dir, '/') = '\0';
	db = lh_asprintf("%s/%s", d->dir.path, LH_STATE_DB);
	LH_FAILPOINT("lhd.open");
	if (!rc)
		rc = lh_store_open(&d->store, &d->loop, db, err);
	free(db);
	if (!rc)
		rc = lh_jobs_open(&d->jobs, &d->loop, d->store, &jobs, on_event, d,
				  err);
	if (!rc)
		rc = lh_control_open(&d->control, &d->loop, d->jobs, d->store,
				     &control, err);
	free(bin_dir);
	free(oom_file);
	return rc;
}

/* Takes over from catch_signals. */
static void watch_signals(struct lhd *d)
{
	for (int i = 0; i < 2; i++)
		uv_signal_start(&d->signals[i], on_signal, ending_signals[i]);
	if (early)
		on_signal(&d->signals[0], early);
}

static void init_handles(struct lhd *d)
{
	uv_timer_init(&d->loop, &d->watchdog);
	uv_timer_init(&d->loop, &d->reaper);
	for (int i = 0; i < 2; i++) {
		uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
	}
}

/* Opens, serves until it is stopped, closes. */
static int serve(struct lhd *d, const struct options *o, struct lh_err *err)
{
	int64_t watchdog_ms = lh_notify_open();
	char safe[PATH_MAX];
	int rc;

	if (uv_loop_init(&d->loop))
		LH_BUG("no event loop");
	init_handles(d);
	if (lh_reap_is_due())
		uv_timer_start(&d->reaper, on_reaper, LH_REAP_MS, LH_REAP_MS);
	rc = open_parts(d, o, err);
	if (rc) {
		d->stopping = true;
		shut_down(d);
	} else {
		fprintf(stderr, "lhd %s ready: %s\n", LH_VERSION,
			lh_escape(safe, sizeof(safe), d->dir.path));
		lh_notify("READY=1");
		if (watchdog_ms)
			uv_timer_start(&d->watchdog, on_watchdog, (uint64_t)watchdog_ms,
				       (uint64_t)watchdog_ms);
		watch_signals(d);
	}
	uv_run(&d->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&d->loop))
		LH_BUG("something is still alive on the loop");
	return rc;
}

/* Gives this process to the program at lhd's path; comes back only if that fails. */
static void become_next(const struct lhd *d, char **argv)
{
	uv_library_shutdown(); /* no other thread is left that could take a signal */
	LH_FAILPOINT("lhd.restart");
	mask_signals(SIG_BLOCK);
	if (early)
		raise(early);
	lh_notify_hand_on();
	execv(d->program, argv);
	lh_error("cannot run '%s': %s", d->program, strerror(errno));
}

int main(int argc, char **argv)
{
	struct lh_err err = LH_ERR_INIT;
	struct options options;
	struct lhd d = { 0 };
	int rc;

	parse_options(&options, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	catch_signals();
	mask_signals(SIG_UNBLOCK);
	umask(0077);
	/* No memory is the end for JSON too; and one seed, before there are
	 * threads. */
	json_set_alloc_funcs(lh_alloc, free);
	json_object_seed(0);
	rc = open_state(&d, &options, &err);
	if (!rc)
		rc = serve(&d, &options, &err);
	lh_statedir_close(&d.dir);
	if (!rc && d.restarting) {
		become_next(&d, argv);
		return EXIT_ERROR;
	}
	if (!rc) {
		lh_info("stopped");
		return EXIT_OK;
	}
	lh_log_err(LH_LOG_ERROR, "cannot start", &err);
	return EXIT_ERROR;
}
