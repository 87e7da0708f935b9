/* man.c: manual pages, from the tables of all commands. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "lighthouse/version.h"

/* Text as roff takes it: no line begins with a control character, and a minus that
 * was typed stays one. */
static void print_text(const char *text)
{
	bool first = true;

	for (; *text; text++) {
		if (first && (*text == '.' || *text == '\''))
			fputs("\\&", stdout);
		first = *text == '\n';
		if (*text == '\\')
			fputs("\\e", stdout);
		else if (*text == '-')
			fputs("\\-", stdout);
		else
			putchar(*text);
	}
}

static void head(const char *name)
{
	printf(".TH %s 1 \"\" \"lighthouse %s\" \"Lighthouse\"\n.SH NAME\n", name, LH_VERSION);
}

static void print_exit_status(void)
{
	fputs(".SH EXIT STATUS\n"
	      ".TP\n0\ndone\n.TP\n1\nrefused or failed\n.TP\n2\nwrong usage\n"
	      ".TP\n3\nno daemon\n.TP\n4\ntimeout\n.TP\n5\nthe job ended otherwise\n", stdout);
}

void ctl_print_man(const struct ctl_command *k)
{
	char name[64];
	size_t first = strcspn(k->summary, "\n");

	snprintf(name, sizeof(name), "LHCTL-%s", k->name);
	head(name);
	printf("lhctl\\-%s \\- ", k->name);
	printf("%.*s\n", (int)(k->summary[first - 1] == '.' ? first - 1 : first), k->summary);
	printf(".SH SYNOPSIS\n.B lhctl %s\n[options]\n", k->name);
	print_text(k->operands);
	fputs("\n.SH DESCRIPTION\n", stdout);
	print_text(k->summary);
	fputs("\n.SH OPTIONS\n", stdout);
	for (const struct ctl_option *o = k->options; o->name; o++) {
		fputs(".TP\n.B ", stdout);
		if (o->letter)
			printf("\\-%c, ", o->letter);
		fputs("\\-\\-", stdout);
		print_text(o->name);
		printf("%s%s\n", o->value ? " " : "", o->value ? o->value : "");
		print_text(o->doc);
		putchar('\n');
	}
	fputs(".TP\n.B \\-h, \\-\\-help\nprint help\n", stdout);
	print_exit_status();
	fputs(".SH EXAMPLES\n.nf\n", stdout);
	print_text(k->examples);
	fputs(".fi\n.SH SEE ALSO\n.BR lhctl (1)\n", stdout);
}

void ctl_print_man_of_all(void)
{
	head("LHCTL");
	fputs("lhctl \\- steer the Lighthouse training daemon\n"
	      ".SH SYNOPSIS\n.B lhctl\n[\\-\\-state DIR] COMMAND [ARGS]\n"
	      ".SH DESCRIPTION\n"
	      "Speaks to lhd over the control socket in its state directory.\n"
	      ".SH OPTIONS\n.TP\n.B \\-\\-state DIR\n"
	      "the daemon's state directory; default $LIGHTHOUSE_STATE, else what lhd uses\n"
	      ".SH COMMANDS\n", stdout);
	for (int i = 0; ctl_commands[i]; i++) {
		size_t first = strcspn(ctl_commands[i]->summary, "\n");

		printf(".TP\n.BR lhctl\\-%s (1)\n%.*s\n", ctl_commands[i]->name, (int)first,
		       ctl_commands[i]->summary);
	}
	print_exit_status();
	fputs(".SH FILES\n.TP\n.I STATE/control.sock\nthe control socket\n"
	      ".TP\n.I STATE/lighthouse.db\nthe database, SQLite; read it any time\n"
	      ".TP\n.I STATE/hooks/\nscripts that rules may run\n", stdout);
}
