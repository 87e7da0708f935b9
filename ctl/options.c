/* options.c: command lines as tables, which also print -h. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "lighthouse/job.h"

static int slot(const struct ctl *c, const char *name)
{
	for (int i = 0; c->command->options[i].name; i++)
		if (!strcmp(c->command->options[i].name, name))
			return i;
	LH_BUG("lhctl %s has no option '%s'", c->command->name, name);
}

const char *ctl_opt(const struct ctl *c, const char *name)
{
	return c->values[slot(c, name)];
}

int ctl_usage(const struct ctl_command *command, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "lhctl %s: ", command->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nhint: 'lhctl %s -h' shows how it is used\n", command->name);
	return CTL_USAGE;
}

int64_t ctl_opt_int(const struct ctl *c, const char *name, int64_t absent, int64_t min,
		    int64_t max)
{
	const char *text = ctl_opt(c, name);
	char *end;
	long long v;

	if (!text)
		return absent;
	errno = 0;
	v = strtoll(text, &end, 10);
	if (!*text || *end || errno || v < min || v > max)
		exit(ctl_usage(c->command, "--%s is '%s', a whole number from %lld to "
			       "%lld is allowed", name, text, (long long)min,
			       (long long)max));
	return v;
}

double ctl_opt_number(const struct ctl *c, const char *name, double absent, double min,
		      double max)
{
	const char *text = ctl_opt(c, name);
	char *end;
	double v;

	if (!text)
		return absent;
	v = strtod(text, &end);
	if (!*text || *end || !isfinite(v) || v < min || v > max)
		exit(ctl_usage(c->command, "--%s is '%s', a number from %g to %g is "
			       "allowed", name, text, min, max));
	return v;
}

json_t *ctl_text(const struct ctl *c, const char *what, const char *text)
{
	json_t *value = json_string(text);

	if (!value)
		exit(ctl_usage(c->command, "%s is not valid UTF-8", what));
	return value;
}

void ctl_check_state(const struct ctl *c, const char *state)
{
	static const char *const names[] = { LH_JOB_STATE_NAMES };
	char all[160] = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!state || !strcmp(state, names[i]))
			return;
		strcat(all, i ? ", " : "");
		strcat(all, names[i]);
	}
	exit(ctl_usage(c->command, "no job has a state '%s'; the states are %s", state,
		       all));
}

static void print_option(const struct ctl_option *o)
{
	char left[64];

	snprintf(left, sizeof(left), "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
		 o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
		 o->value ? " " : "", o->value ? o->value : "");
	printf("  %-28s %s\n", left, o->doc);
}

void ctl_print_help(const struct ctl_command *command)
{
	printf("usage: lhctl %s [options]%s%s\n\n%s\n\noptions:\n", command->name,
	       *command->operands ? " " : "", command->operands, command->summary);
	for (const struct ctl_option *o = command->options; o->name; o++)
		print_option(o);
	printf("  -h, --help                   this text\n"
	       "\nexit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon, "
	       "4 timeout,\n             5 the job ended otherwise\n"
	       "\nexamples:\n%s", command->examples);
}

/* The option an argument names: "--name", "--name=value" or "-x"; -1 none. */
static int match(const struct ctl_command *command, const char *arg, const char **value)
{
	*value = NULL;
	for (int i = 0; command->options[i].name; i++) {
		const struct ctl_option *o = &command->options[i];
		size_t n = strlen(o->name);

		if (arg[1] == o->letter && o->letter && !arg[2])
			return i;
		if (strncmp(arg, "--", 2) || strncmp(arg + 2, o->name, n))
			continue;
		if (!arg[2 + n])
			return i;
		if (arg[2 + n] == '=') {
			*value = arg + 3 + n;
			return i;
		}
	}
	return -1;
}

int ctl_parse(struct ctl *c, int argc, char **argv)
{
	const struct ctl_command *command = c->command;
	bool only_args = false;

	c->args = lh_calloc((size_t)argc + 1, sizeof(*c->args));
	c->repeated = lh_calloc((size_t)argc + 1, sizeof(*c->repeated));
	for (int i = 0; i < argc; i++) {
		const struct ctl_option *o;
		const char *value;
		int at;

		if (only_args || argv[i][0] != '-' || !argv[i][1]) {
			c->args[c->arg_count++] = argv[i];
			continue;
		}
		if (!strcmp(argv[i], "--")) {
			only_args = true;
			continue;
		}
		if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
			ctl_print_help(command);
			return -1;
		}
		at = match(command, argv[i], &value);
		if (at < 0)
			return ctl_usage(command, "there is no option '%s'", argv[i]);
		o = &command->options[at];
		if (!o->value && value)
			return ctl_usage(command, "--%s takes no value", o->name);
		if (o->value && !value && ++i >= argc)
			return ctl_usage(command, "--%s needs %s", o->name, o->value);
		if (!value)
			value = o->value ? argv[i] : "";
		c->values[at] = value;
		if (o->repeats)
			c->repeated[c->repeated_count++] = value;
	}
	if (c->arg_count < command->min_args)
		return ctl_usage(command, "%s is missing", command->operands);
	if (command->max_args >= 0 && c->arg_count > command->max_args)
		return ctl_usage(command, "unexpected '%s'", c->args[command->max_args]);
	return CTL_DONE;
}

char *ctl_directory_of(const char *path)
{
	char *real = realpath(path, NULL), *slash;

	if (!real)
		return lh_strdup("/");
	slash = strrchr(real, '/');
	slash[slash == real] = '\0';
	return real;
}

char *ctl_bin_dir(void)
{
	char path[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = '\0';
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	return lh_strdup(path);
}
