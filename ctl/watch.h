/* watch.h: what `lhctl watch` knows of a job, and how it looks on a terminal. */
#ifndef LIGHTHOUSE_CTL_WATCH_H
#define LIGHTHOUSE_CTL_WATCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "chart.h"
#include "screen.h"

enum { CTL_WATCH_EVENTS = 64 };

struct ctl_watch {
	json_t *job;                 /* newest job.get */
	json_t *phases;              /* of job.show */
	json_t *step;                /* newest step, NULL: none yet */
	json_t *evaluation;          /* newest evaluation, NULL: none yet */
	json_t *events[CTL_WATCH_EVENTS]; /* the newest, oldest first */
	int event_count;
	struct ctl_series loss, val_loss; /* training; validation, full attention */
};

/* Takes events, the newest last; one that is there already is dropped. */
void ctl_watch_add_event_take(struct ctl_watch *w, json_t *event);
void ctl_watch_release(struct ctl_watch *w);
/* The whole page, for whatever size it has. */
void ctl_watch_draw(const struct ctl_watch *w, struct ctl_page *p);

#endif
