/* cmd_completion.c: completions for shells, from the tables of all commands.
 *
 * A shell asks lhctl itself for the names of jobs, so the scripts never age. */
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const struct ctl_option options[] = { { NULL } };

static void each_command(const char *format)
{
	for (int i = 0; ctl_commands[i]; i++)
		printf(format, ctl_commands[i]->name);
}

static void print_options(const struct ctl_command *command)
{
	for (const struct ctl_option *o = command->options; o->name; o++)
		printf(" --%s", o->name);
	fputs(" --help", stdout);
}

static void print_bash(void)
{
	fputs("# bash completion of lhctl; made by 'lhctl completion bash'\n"
	      "_lhctl() {\n"
	      "  local cur=${COMP_WORDS[COMP_CWORD]} words\n"
	      "  if [ \"$COMP_CWORD\" = 1 ]; then\n"
	      "    words='", stdout);
	each_command("%s ");
	fputs("help --state --version'\n"
	      "  elif [[ $cur == -* ]]; then\n"
	      "    case ${COMP_WORDS[1]} in\n", stdout);
	for (int i = 0; ctl_commands[i]; i++) {
		printf("    %s) words='", ctl_commands[i]->name);
		print_options(ctl_commands[i]);
		fputs("' ;;\n", stdout);
	}
	fputs("    esac\n"
	      "  else\n"
	      "    case ${COMP_WORDS[1]} in\n"
	      "    help) words='job rules ", stdout);
	each_command("%s ");
	fputs("' ;;\n    ", stdout);
	for (int i = 0, n = 0; ctl_commands[i]; i++)
		if (strstr(ctl_commands[i]->operands, "JOB"))
			printf("%s%s", n++ ? "|" : "", ctl_commands[i]->name);
	fputs(") words=$(lhctl ls 2>/dev/null | cut -f2) ;;\n"
	      "    *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
	      "    esac\n"
	      "  fi\n"
	      "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	      "}\n"
	      "complete -F _lhctl lhctl\n", stdout);
}

/* One line of a summary, for between single quotes and brackets. */
static void print_doc(const char *doc)
{
	for (; *doc && *doc != '\n'; doc++)
		if (*doc == '\'')
			fputs("’", stdout);
		else if (*doc == '[' || *doc == ']' || *doc == ':')
			printf("\\%c", *doc);
		else
			putchar(*doc);
}

static void print_zsh(void)
{
	fputs("#compdef lhctl\n# zsh completion of lhctl; made by 'lhctl completion zsh'\n"
	      "_lhctl() {\n"
	      "  local -a commands jobs\n"
	      "  commands=(\n", stdout);
	for (int i = 0; ctl_commands[i]; i++) {
		printf("    '%s:", ctl_commands[i]->name);
		print_doc(ctl_commands[i]->summary);
		fputs("'\n", stdout);
	}
	fputs("  )\n"
	      "  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
	      "  jobs=(${(f)\"$(lhctl ls 2>/dev/null | cut -f2)\"})\n"
	      "  case $words[2] in\n", stdout);
	for (int i = 0; ctl_commands[i]; i++) {
		printf("  %s) _arguments", ctl_commands[i]->name);
		for (const struct ctl_option *o = ctl_commands[i]->options; o->name; o++) {
			printf(" '%s--%s[", o->repeats ? "*" : "", o->name);
			print_doc(o->doc);
			printf("]%s%s'", o->value ? ":" : "", o->value ? o->value : "");
		}
		printf(" '*:operand:%s' ;;\n",
		       strstr(ctl_commands[i]->operands, "JOB") ? "($jobs)" : "_files");
	}
	fputs("  esac\n}\n_lhctl \"$@\"\n", stdout);
}

static void print_fish(void)
{
	fputs("# fish completion of lhctl; made by 'lhctl completion fish'\n"
	      "complete -c lhctl -f\n", stdout);
	for (int i = 0; ctl_commands[i]; i++) {
		const struct ctl_command *k = ctl_commands[i];

		printf("complete -c lhctl -n __fish_use_subcommand -a %s -d '", k->name);
		print_doc(k->summary);
		fputs("'\n", stdout);
		for (const struct ctl_option *o = k->options; o->name; o++) {
			printf("complete -c lhctl -n '__fish_seen_subcommand_from %s' -l %s",
			       k->name, o->name);
			if (o->letter)
				printf(" -s %c", o->letter);
			printf("%s -d '", o->value ? " -r" : "");
			print_doc(o->doc);
			fputs("'\n", stdout);
		}
		printf("complete -c lhctl -n '__fish_seen_subcommand_from %s' ", k->name);
		puts(strstr(k->operands, "JOB") ?
			     "-a '(lhctl ls 2>/dev/null | cut -f2)'" : "-F");
	}
}

static int run(struct ctl *c)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} shells[] = { { "bash", print_bash }, { "zsh", print_zsh }, { "fish", print_fish } };

	for (size_t i = 0; i < sizeof(shells) / sizeof(*shells); i++)
		if (!strcmp(shells[i].name, c->args[0])) {
			shells[i].print();
			return CTL_DONE;
		}
	return ctl_usage(c->command, "there is no completion for '%s'; bash, zsh and fish have "
			 "one", c->args[0]);
}

const struct ctl_command ctl_cmd_completion = {
	"completion", "SHELL", "Print the completion script of bash, zsh or fish.",
	"  lhctl completion bash >~/.local/share/bash-completion/completions/lhctl\n"
	"  lhctl completion fish | source\n", 1, 1, options, run };
