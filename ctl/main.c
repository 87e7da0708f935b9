/* main.c: lhctl: finds the subcommand, the state directory, and gets out of the
 * way. Adding a subcommand: its file, and a line in each list here. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "ctl.h"
#include "jobs/jobfile.h"
#include "lighthouse/version.h"

const struct ctl_command *const ctl_commands[] = {
	&ctl_cmd_pack, &ctl_cmd_data, &ctl_cmd_ids, &ctl_cmd_import,
	&ctl_cmd_check, &ctl_cmd_estimate, &ctl_cmd_submit, &ctl_cmd_replay, &ctl_cmd_ls,
	&ctl_cmd_show, &ctl_cmd_watch, &ctl_cmd_switch, &ctl_cmd_pause,
	&ctl_cmd_resume, &ctl_cmd_cancel, &ctl_cmd_checkpoint, &ctl_cmd_set,
	&ctl_cmd_eval, &ctl_cmd_priority, &ctl_cmd_annotate, &ctl_cmd_rule,
	&ctl_cmd_wait, &ctl_cmd_sample, &ctl_cmd_metrics, &ctl_cmd_events,
	&ctl_cmd_logs, &ctl_cmd_journal, &ctl_cmd_checkpoints, &ctl_cmd_verify,
	&ctl_cmd_export, &ctl_cmd_dashboard, &ctl_cmd_devices, &ctl_cmd_info,
	&ctl_cmd_doctor, &ctl_cmd_restart, &ctl_cmd_stop, &ctl_cmd_version,
	&ctl_cmd_completion, NULL,
};

static const struct ctl_command *find(const char *name)
{
	for (int i = 0; ctl_commands[i]; i++)
		if (!strcmp(ctl_commands[i]->name, name))
			return ctl_commands[i];
	return NULL;
}

static void print_usage(FILE *f)
{
	fputs("usage: lhctl [--state DIR] COMMAND [ARGS]\n\n", f);
	for (int i = 0; ctl_commands[i]; i++)
		fprintf(f, "  %-11s %.*s\n", ctl_commands[i]->name,
			(int)strcspn(ctl_commands[i]->summary, ".\n"), ctl_commands[i]->summary);
	fputs("  help        help of a COMMAND; 'help job': the keys of a job file;\n"
	      "              'help rules': what a rule's condition may ask\n"
	      "\n  --state DIR the daemon's state directory; default $LIGHTHOUSE_STATE,\n"
	      "              else what lhd uses\n"
	      "  -h, --help  this text; every command has its own\n"
	      "  --version\n"
	      "\nexit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon, "
	      "4 timeout,\n             5 the job ended otherwise\n"
	      "\nexamples:\n"
	      "  lhctl pack -o text --validation 0.05 ~/documents\n"
	      "  lhctl submit job.yaml && lhctl watch my-job\n"
	      "  lhctl switch my-job recovery -m 'loss is flat'\n", f);
}

/* Commands that a mistyped name may have meant: same first letters. */
static int unknown(const char *name)
{
	fprintf(stderr, "lhctl: there is no command '%s'\n", name);
	for (int i = 0; ctl_commands[i]; i++)
		if (!strncmp(ctl_commands[i]->name, name, strlen(name) > 2 ? 2 : 1)) {
			fprintf(stderr, "hint: did you mean '%s'?\n", ctl_commands[i]->name);
			return CTL_USAGE;
		}
	fputs("hint: 'lhctl -h' lists them\n", stderr);
	return CTL_USAGE;
}

/* For `make install`: pages and their names. */
static int man(int argc, char **argv)
{
	if (argc > 1 && !find(argv[1]))
		return unknown(argv[1]);
	if (argc > 1)
		ctl_print_man(find(argv[1]));
	else
		ctl_print_man_of_all();
	return CTL_DONE;
}

static int help(int argc, char **argv)
{
	if (argc && !strcmp(argv[0], "--man"))
		return man(argc, argv);
	if (argc && !strcmp(argv[0], "--list")) {
		for (int i = 0; ctl_commands[i]; i++)
			puts(ctl_commands[i]->name);
		return CTL_DONE;
	}
	if (argc > 1 || (argc == 1 && argv[0][0] == '-'))
		argc = 0;
	if (argc == 1 && !strcmp(argv[0], "job")) {
		lh_jobfile_print_reference(stdout);
		return CTL_DONE;
	}
	if (argc == 1 && !strcmp(argv[0], "rules")) {
		fputs(ctl_rules_help, stdout);
		return CTL_DONE;
	}
	if (argc == 1 && !find(argv[0]))
		return unknown(argv[0]);
	if (argc == 1)
		ctl_print_help(find(argv[0]));
	else
		print_usage(stdout);
	return CTL_DONE;
}

static int run(const char *state, const char *name, int argc, char **argv)
{
	struct ctl c = { .state = state, .command = find(name) };
	int rc;

	if (!c.command)
		return unknown(name);
	rc = ctl_parse(&c, argc, argv);
	if (rc == CTL_DONE)
		rc = c.command->run(&c);
	else if (rc < 0)
		rc = CTL_DONE;
	free(c.args);
	free(c.repeated);
	return rc;
}

int main(int argc, char **argv)
{
	const char *state = NULL;
	int i = 1, rc;

	setlocale(LC_CTYPE, ""); /* how wide characters are */
	if (i + 1 < argc && !strcmp(argv[i], "--state")) {
		state = argv[i + 1];
		i += 2;
	} else if (i < argc && !strncmp(argv[i], "--state=", 8)) {
		state = argv[i] + 8;
		i++;
	}
	if (i >= argc) {
		print_usage(stderr);
		rc = CTL_USAGE;
	} else if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
		print_usage(stdout);
		rc = CTL_DONE;
	} else if (!strcmp(argv[i], "--version")) {
		puts(LH_VERSION);
		rc = CTL_DONE;
	} else if (!strcmp(argv[i], "help")) {
		rc = help(argc - i - 1, argv + i + 1);
	} else {
		rc = run(state, argv[i], argc - i - 1, argv + i + 1);
	}
	return rc;
}
