/* gpus.h: the process lhgpus, as lhd has it: started when somebody asks, ended when
 * nobody does, and never waited for.
 *
 * A question is answered when lhgpus does, and after LH_GPUS_ANSWER_MS without it. One
 * that does not answer at all is killed; as long as it does not even end then, its
 * driver holds it, and no other is started. Loop thread.
 */
#ifndef LIGHTHOUSE_GPUS_H
#define LIGHTHOUSE_GPUS_H

#include <jansson.h>
#include <uv.h>

enum {
	LH_GPUS_ANSWER_MS = 1500, /* a question waits */
	LH_GPUS_HANG_MS = 30000,  /* a driver may take long when it starts */
	LH_GPUS_IDLE_MS = 30000,  /* without questions */
};

struct lh_gpus;

/* `program`: lhgpus; copied. Starts nothing. */
struct lh_gpus *lh_gpus_new(uv_loop_t *loop, const char *program);
/* Calls `done` once, later or at once, with an array (nvml.h), borrowed, or NULL and why
 * there is none. One question at a time. */
void lh_gpus_ask(struct lh_gpus *g, void (*done)(void *arg, json_t *gpus, const char *why),
		 void *arg);
/* Kills it, and frees; `closed` once the loop is free of it. Not while one asks. */
void lh_gpus_close(struct lh_gpus *g, void (*closed)(void *arg), void *arg);

#endif
