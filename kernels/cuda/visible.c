/* visible.c: see visible.h. */
#include "visible.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/err.h"

static const char LIST[] = "CUDA_VISIBLE_DEVICES";

/* Entry i of a list of names; heap. */
static char *entry(const char *list, int i)
{
	if (!list)
		return lh_asprintf("%d", i);
	for (; i && *list; i--) {
		list += strcspn(list, ",");
		list += *list == ',';
	}
	return lh_asprintf("%.*s", (int)strcspn(list, ","), list);
}

void lh_cuda_choose(int number, int count)
{
	const char *had = getenv(LIST);
	char *turned = lh_strdup("");

	for (int i = 0; i < count; i++) {
		char *name = entry(had, (number + i) % count);
		char *longer = lh_asprintf("%s%s%s", turned, i ? "," : "", name);

		free(name);
		free(turned);
		turned = longer;
	}
	setenv(LIST, turned, 1);
	free(turned);
}
