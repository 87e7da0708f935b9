/* looks.c: see looks.h. What a worker tells is taken as it comes: what is missing in it
 * is missing in the rows. */
#include "looks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"

static json_t *list_of(const json_t *look, const char *key)
{
	return json_object_get(json_object_get(look, "data"), key);
}

/* What every row of a look begins with. */
static json_t *begin_row(const json_t *look)
{
	static const char *const keys[] = { "attempt", "step", "phase", "attention" };
	json_t *row = json_object();

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		json_object_set(row, keys[i], json_object_get(look, keys[i]));
	return row;
}

static void add_levels(json_t *rows, const json_t *look)
{
	static const char *const whole[] = { "never", "window" };
	json_t *level, *row;
	size_t i;

	json_array_foreach (list_of(look, "levels"), i, level) {
		row = begin_row(look);
		json_object_update(row, level);
		for (size_t k = 0; k < sizeof(whole) / sizeof(*whole); k++)
			json_object_set(row, whole[k], list_of(look, whole[k]));
		json_array_append_new(rows, row);
	}
}

static void add_buckets(json_t *rows, const json_t *look)
{
	json_t *edges = list_of(look, "edges"), *loss, *row;
	size_t i;

	json_array_foreach (list_of(look, "loss"), i, loss) {
		row = begin_row(look);
		json_object_set(row, "set_name", list_of(look, "set_name"));
		json_object_set(row, "from", json_array_get(edges, i));
		json_object_set_new(row, "to", json_integer(json_integer_value(
						       json_array_get(edges, i + 1)) - 1));
		json_object_set(row, "loss", loss);
		json_object_set(row, "tokens", json_array_get(list_of(look, "tokens"), i));
		json_array_append_new(rows, row);
	}
}

static void add_contexts(json_t *rows, const json_t *look)
{
	double samples = json_number_value(list_of(look, "samples"));
	json_t *cells, *row, *found;
	char name[32];
	size_t i, d;

	json_array_foreach (list_of(look, "found"), i, cells) {
		row = begin_row(look);
		json_object_set(row, "context", json_array_get(list_of(look, "contexts"), i));
		json_array_foreach (cells, d, found) {
			snprintf(name, sizeof(name), "depth_%" JSON_INTEGER_FORMAT,
				 json_integer_value(json_array_get(list_of(look, "depths"), d)));
			json_object_set_new(row, name,
					    samples > 0 ? json_real(json_number_value(found) /
								    samples) : json_null());
		}
		json_array_append_new(rows, row);
	}
}

static void add_choices(json_t *rows, const json_t *look)
{
	json_t *set, *row;
	size_t i;

	json_array_foreach (list_of(look, "sets"), i, set) {
		row = begin_row(look);
		json_object_update(row, set);
		json_array_append_new(rows, row);
	}
}

json_t *ctl_look_rows(const json_t *look)
{
	const char *kind = ctl_str(look, "kind");
	json_t *rows = json_array();

	if (!strcmp(kind, "selection"))
		add_levels(rows, look);
	else if (!strcmp(kind, "positions"))
		add_buckets(rows, look);
	else if (!strcmp(kind, "passkey"))
		add_contexts(rows, look);
	else if (!strcmp(kind, "choices"))
		add_choices(rows, look);
	return rows;
}

/* ---- lhctl show ------------------------------------------------------------ */

static const json_t *look_of(const json_t *show, const char *kind)
{
	json_t *look;
	size_t i;

	json_array_foreach (json_object_get(show, "looks"), i, look)
		if (!strcmp(ctl_str(look, "kind"), kind))
			return look;
	return NULL;
}

static void print_share(const char *what, const json_t *o, const char *key)
{
	if (ctl_has(o, key))
		printf(", %s %.1f %%", what, 100 * ctl_real(o, key));
}

static void print_selection(const json_t *look)
{
	const json_t *data = json_object_get(look, "data");
	json_t *level;
	size_t i;

	if (!look)
		return;
	printf("selection at step %" PRId64 ": %.1f %% of tokens chosen by no head in %" PRId64
	       " looks\n", ctl_int(look, "step"), 100 * ctl_real(data, "never"),
	       ctl_int(data, "window"));
	json_array_foreach (json_object_get(data, "levels"), i, level) {
		printf("  level %" PRId64 ": a head expands %.1f %%", ctl_int(level, "level"),
		       100 * ctl_real(level, "expanded"));
		print_share("any head", level, "any_head");
		print_share("heads agree on", level, "heads");
		print_share("as the look before", level, "kept");
		printf("\n");
	}
}

static void print_grid(const json_t *look)
{
	const json_t *data = json_object_get(look, "data");
	json_t *rows = ctl_look_rows(look), *row, *cell;
	const char *key;
	size_t i;

	if (json_array_size(rows))
		printf("passkeys at step %" PRId64 " with %s attention: %.1f %% found, 10 %% by "
		       "chance; by context and depth, in %%\n", ctl_int(look, "step"),
		       ctl_safe(look, "attention"), 100 * ctl_real(data, "right"));
	json_array_foreach (rows, i, row) {
		printf("  %8" PRId64, ctl_int(row, "context"));
		json_object_foreach (row, key, cell)
			if (!strncmp(key, "depth_", 6))
				printf("  %s: %3.0f", key + 6, 100 * json_number_value(cell));
		printf("\n");
	}
	json_decref(rows);
}

static void print_choices(const json_t *look)
{
	json_t *rows = ctl_look_rows(look), *row;
	size_t i;

	if (json_array_size(rows))
		printf("multiple choice at step %" PRId64 " with %s attention\n",
		       ctl_int(look, "step"), ctl_safe(look, "attention"));
	json_array_foreach (rows, i, row)
		printf("  %s: %.1f %% of %" PRId64 " right, %.1f %% by length; %.1f %% by "
		       "chance\n", ctl_safe(row, "set_name"), 100 * ctl_real(row, "acc"),
		       ctl_int(row, "items"), 100 * ctl_real(row, "acc_norm"),
		       100 * ctl_real(row, "chance"));
	json_decref(rows);
}

static void print_cost(const char *what, const json_t *o, bool *any)
{
	if (!ctl_has(o, "cost"))
		return;
	printf("%s%s %.2g %%", *any ? ", " : "looks, by the time of steps: ", what,
	       100 * ctl_real(o, "cost"));
	*any = true;
}

static void print_costs(const json_t *show)
{
	json_t *evaluations = json_object_get(show, "evaluations");
	size_t n = json_array_size(evaluations);
	bool any = false;

	if (n)
		print_cost("validation loss", json_array_get(evaluations, n - 1), &any);
	print_cost("by place", look_of(show, "positions"), &any);
	print_cost("selection", look_of(show, "selection"), &any);
	print_cost("passkeys", look_of(show, "passkey"), &any);
	print_cost("multiple choice", look_of(show, "choices"), &any);
	if (any)
		printf("\n");
}

void ctl_print_looks(const json_t *show)
{
	print_selection(look_of(show, "selection"));
	if (look_of(show, "passkey"))
		print_grid(look_of(show, "passkey"));
	if (look_of(show, "choices"))
		print_choices(look_of(show, "choices"));
	print_costs(show);
}
