/* pages.c: see ctl.h. One page is in memory at a time. */
#include <stdio.h>

#include "ctl.h"

enum { PAGE_ROWS = 10000 }; /* the daemon's limit */

static int64_t page_limit(const struct ctl_pages *p, int64_t printed)
{
	int64_t left = p->limit < 0 ? PAGE_ROWS : p->limit - printed;

	return left < PAGE_ROWS ? left : PAGE_ROWS;
}

/* Rows of a page; the row that is printed first opens the list. */
static void print_page(const struct ctl *c, struct ctl_pages *p, const json_t *rows,
		       bool first)
{
	json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		if (!ctl_opt(c, "json")) {
			p->print(p->arg, row);
			continue;
		}
		fputs(first && !i ? "\n" : ",\n", stdout);
		ctl_print_json_part(row);
	}
	if (!ctl_opt(c, "json"))
		p->flush(p->arg);
}

int ctl_pages_print(const struct ctl *c, struct ctl_client *k, struct ctl_pages *p,
		    bool *more)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t printed = 0;

	do {
		int64_t limit = page_limit(p, printed);
		json_t *result, *rows;

		json_object_set_new(p->params, "limit", json_integer(limit));
		result = ctl_call(k, p->method, json_incref(p->params), &err);
		if (!result)
			return ctl_fail(&err);
		if (ctl_opt(c, "json") && !printed)
			printf("{\"%s\": [", p->list);
		rows = json_object_get(result, p->list);
		print_page(c, p, rows, !printed);
		printed += (int64_t)json_array_size(rows);
		*more = json_is_true(json_object_get(result, "more"));
		if (*more)
			p->go_on(p->params,
				 json_array_get(rows, json_array_size(rows) - 1));
		json_decref(result);
	} while (*more && (p->limit < 0 || printed < p->limit));
	if (ctl_opt(c, "json"))
		printf("\n], \"more\": %s}\n", *more ? "true" : "false");
	return CTL_DONE;
}

void ctl_behind_step(json_t *params, const json_t *last)
{
	json_object_set(params, "after_attempt", json_object_get(last, "attempt"));
	json_object_set(params, "after_step", json_object_get(last, "step"));
}

void ctl_behind_evaluation(json_t *params, const json_t *last)
{
	json_object_set(params, "after_attempt", json_object_get(last, "attempt"));
	json_object_set(params, "after_seq", json_object_get(last, "seq"));
}
