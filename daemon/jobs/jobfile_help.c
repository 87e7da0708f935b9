/* jobfile_help.c: the keys of a job file, for people. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "jobs/jobfile.h"
#include "jobs/jobfile_int.h"

static void print_key(FILE *f, const struct lh_key *k, const char *prefix)
{
	char path[80], kind[160] = "";

	snprintf(path, sizeof(path), "%s%s", prefix, k->path);
	for (int i = 0; k->names[i]; i++) {
		strcat(kind, i ? " | " : "");
		strcat(kind, k->names[i]);
	}
	if (k->type == LH_KEY_INTEGER && k->max < INT64_C(1) << 53)
		snprintf(kind, sizeof(kind), "%" PRId64 " .. %" PRId64, k->min, k->max);
	else if (k->type == LH_KEY_INTEGER)
		snprintf(kind, sizeof(kind), "%" PRId64 " ..", k->min);
	else if (k->type == LH_KEY_NUMBER)
		snprintf(kind, sizeof(kind), "%g .. %g", k->min_number, k->max_number);
	else if (k->type == LH_KEY_BOOLEAN)
		snprintf(kind, sizeof(kind), "true | false");
	else if (k->type == LH_KEY_PATH && *kind)
		strcat(kind, " | PATH");
	fprintf(f, "  %-28s %s", path, k->doc);
	if (*kind)
		fprintf(f, " [%s]", kind);
	if (k->lighthouse)
		fprintf(f, " (lighthouse)");
	if (k->required)
		fprintf(f, " (required)");
	else if (*k->fallback)
		fprintf(f, " (%s)", k->fallback);
	fputc('\n', f);
}

void lh_jobfile_print_reference(FILE *f)
{
	const char *last = "";

	fputs("The keys of a job file: meaning [allowed] (default). A file to start from is\n"
	      "ctl/examples/demo.yaml.\n", f);
	for (int i = 0; i < lh_job_keys_count; i++) {
		const char *path = lh_job_keys[i].path;
		size_t n = strcspn(path, ".");

		if (path[n] && strncmp(path, last, n + 1))
			fputc('\n', f);
		last = path;
		print_key(f, &lh_job_keys[i], "");
	}
	fputs("\nA list of phases, run one after the other, each with:\n", f);
	for (int i = 0; i < lh_phase_keys_count; i++)
		print_key(f, &lh_phase_keys[i], "phases.N.");
	fputs("\nA list of rules, which may be empty, each with:\n", f);
	for (int i = 0; i < lh_rule_keys_count; i++)
		print_key(f, &lh_rule_keys[i], "rules.N.");
	fputs("\nPresets of models:\n ", f);
	last = "";
	for (const struct lh_preset *p = lh_presets; p->name; p++) {
		if (strcmp(p->name, last))
			fprintf(f, " %s", p->name);
		last = p->name;
	}
	fputc('\n', f);
}
