/* looks.h: what evaluations saw beside the loss (job.looks), as rows. */
#ifndef LIGHTHOUSE_CTL_LOOKS_H
#define LIGHTHOUSE_CTL_LOOKS_H

#include <jansson.h>

/* A look as flat rows for a table or CSV: a level, a bucket of places or a context
 * each; an empty list for a kind that is not known. New reference. */
json_t *ctl_look_rows(const json_t *look);
/* Of job.show: what was seen last, in sentences and a grid, and what all of it costs. */
void ctl_print_looks(const json_t *show);

#endif
