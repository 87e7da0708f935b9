/* cmd_doctor.c: what a machine needs to train, each with its remedy.
 *
 * Looks with its own eyes where it can, and asks the daemon what only that knows. A
 * row is good, a remark (something is not there and may be missed) or bad. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/statedir.h"
#include "commands.h"
#include "jobs/gpu.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"
#include "tokenizer.h"

enum { ROOM_GIB = 10 };
enum verdict { GOOD, REMARK, BAD };

static const struct ctl_option options[] = {
	{ "json", 0, NULL, false, "as data" },
	{ NULL },
};

struct doctor {
	const struct ctl *c;
	json_t *rows;     /* [{what, verdict, text, remedy}] */
	bool bad;
};

static void add(struct doctor *d, const char *what, enum verdict v, const char *text,
		const char *remedy)
{
	static const char *const names[] = { "good", "remark", "bad" };
	static const char *const marks[] = { "\u2713", "-", "\u2717" };
	json_t *said = json_string(text);
	char safe[1200];

	d->bad |= v == BAD;
	json_array_append_new(d->rows,
			      json_pack("{s:s, s:s, s:o, s:s}", "what", what, "verdict", names[v],
					"text", said ? said : json_string("(not UTF-8)"),
					"remedy", v == GOOD ? "" : remedy));
	if (ctl_opt(d->c, "json"))
		return;
	printf("%s %-16s %s\n", marks[v], what, lh_escape(safe, sizeof(safe), text));
	if (v != GOOD && *remedy)
		printf("  %-16s %s\n", "", lh_escape(safe, sizeof(safe), remedy));
}

/* ---- the state directory --------------------------------------------------- */

static void check_modes(struct doctor *d, const char *state)
{
	struct stat st;
	char text[PATH_MAX + 64];

	if (stat(state, &st)) {
		snprintf(text, sizeof(text), "%s is not there yet", state);
		add(d, "state directory", REMARK, text, "lhd makes it");
		return;
	}
	snprintf(text, sizeof(text), "%s, mode %03o, uid %u", state, st.st_mode & 0777,
		 (unsigned)st.st_uid);
	if (st.st_mode & 022)
		add(d, "state directory", BAD, text, "others may write it: chmod go-w it");
	else
		add(d, "state directory", GOOD, text, "");
}

static void check_disk(struct doctor *d, const char *state)
{
	struct statvfs room;
	struct statfs fs;
	const char *network;
	char text[128];

	if (statvfs(state, &room) || statfs(state, &fs))
		return; /* not there: said already */
	network = lh_statedir_network_fs((unsigned long)fs.f_type);
	if (network) {
		snprintf(text, sizeof(text), "the state directory lies on %s", network);
		add(d, "disk", BAD, text, "choose a local disk with --state");
		return;
	}
	snprintf(text, sizeof(text), "%.1f GiB free",
		 (double)room.f_bavail * (double)room.f_frsize / (1 << 30));
	if ((double)room.f_bavail * (double)room.f_frsize < (double)ROOM_GIB * (1 << 30))
		add(d, "disk", REMARK, text, "a checkpoint takes 12 bytes a parameter; make "
					     "room, or fewer with checkpoint.keep");
	else
		add(d, "disk", GOOD, text, "");
}

/* ---- programs and devices -------------------------------------------------- */

static void check_programs(struct doctor *d, const char *bin)
{
	static const char *const names[] = { "lhd", "lhkeeper", "lhgpus",
					     "lhworker-cpu" };
	char text[PATH_MAX + 64] = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char *path = lh_asprintf("%s/%s", bin, names[i]);

		if (access(path, X_OK))
			snprintf(text, sizeof(text), "%s is not there", path);
		free(path);
	}
	if (*text)
		add(d, "programs", BAD, text, "they lie beside lhctl: make, or make install");
	else
		add(d, "programs", GOOD, bin, "");
}

/* Both are missed only by who packs with such a tokenizer. */
static void check_tokenizers(struct doctor *d)
{
	static const struct {
		const char *what, *good;
		enum lh_vocabulary_kind kind;
	} rows[] = {
		{ "tokenizer.json", "by node, with Hugging Face's tokenizers",
		  LH_VOCABULARY_JSON },
		{ "SentencePiece", "of .model files", LH_VOCABULARY_SENTENCEPIECE },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct lh_err err = LH_ERR_INIT;

		if (ctl_tokenizer_check(rows[i].kind, &err))
			add(d, rows[i].what, REMARK, err.text, err.hint);
		else
			add(d, rows[i].what, GOOD, rows[i].good, "");
	}
}

/* Runs lhworker-cuda --probe, which opens driver, cuBLASLt and cuDNN. */
static void check_gpu(struct doctor *d, const char *bin)
{
	struct lh_gpu gpu;
	char text[256];

	lh_gpu_find(&gpu, bin);
	if (gpu.usable) {
		snprintf(text, sizeof(text), "%d x %s, %.1f GiB, with driver, cuBLASLt and "
			 "cuDNN", gpu.count, gpu.name,
			 (double)gpu.memory_bytes / (1 << 30));
		add(d, "GPU", GOOD, text, "");
	} else {
		add(d, "GPU", access("/proc/driver/nvidia/version", R_OK) ? REMARK : BAD,
		    gpu.why.text, *gpu.why.hint ? gpu.why.hint : "jobs run on the CPU");
	}
}

/* ---- the daemon ------------------------------------------------------------ */

static void check_daemon(struct doctor *d)
{
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k = ctl_try_connect(d->c, &err);
	json_t *info = k ? ctl_call(k, "daemon.info", json_object(), &err) : NULL;
	char text[160];

	ctl_disconnect(k);
	if (!info) {
		add(d, "daemon", REMARK, err.text, err.hint);
		return;
	}
	snprintf(text, sizeof(text), "lhd %s, process %lld, %lld jobs, %lld workers",
		 ctl_safe(info, "version"), (long long)ctl_int(info, "pid"),
		 (long long)ctl_int(info, "jobs"), (long long)ctl_int(info, "workers"));
	if (strcmp(ctl_str(info, "version"), LH_VERSION))
		add(d, "daemon", REMARK, text, "it is of another version than this lhctl: "
					       "start the new one");
	else
		add(d, "daemon", GOOD, text, "");
	json_decref(info);
}

static int run(struct ctl *c)
{
	struct doctor d = { .c = c, .rows = json_array() };
	struct lh_err err = LH_ERR_INIT;
	char *bin = ctl_bin_dir(), *state = ctl_state_dir(c, &err);

	if (state) {
		check_modes(&d, state);
		check_disk(&d, state);
	} else {
		add(&d, "state directory", BAD, err.text, err.hint);
	}
	check_programs(&d, bin);
	check_tokenizers(&d);
	check_gpu(&d, bin);
	if (state)
		check_daemon(&d);
	free(state);
	free(bin);
	if (ctl_opt(c, "json"))
		ctl_print_json_take(json_pack("{s:O}", "checks", d.rows));
	json_decref(d.rows);
	return d.bad ? CTL_REFUSED : CTL_DONE;
}

const struct ctl_command ctl_cmd_doctor = {
	"doctor", "", "Look whether everything that training needs is there.\n"
	"Programs, tokenizers, state directory, disk, GPU with its libraries, daemon: each with\n"
	"what to do about it. Exit status 1 if something is wrong; what is merely absent is not.",
	"  lhctl doctor\n  lhctl doctor --json\n", 0, 0, options, run };
