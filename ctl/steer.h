/* steer.h: commands that a job carries out, for the subcommands that give one. */
#ifndef LIGHTHOUSE_CTL_STEER_H
#define LIGHTHOUSE_CTL_STEER_H

#include "ctl.h"

/* The options that all of them have; end a table with them. */
#define CTL_STEER_OPTIONS                                                       \
	{ "message", 'm', "WHY", false, "kept in the journal" },                \
	{ "no-wait", 0, NULL, false, "do not wait for the outcome" },           \
	{ "request-id", 0, "UUID", false,                                       \
	  "repeating a request with its id is harmless" },                      \
	{ "timeout", 0, "S", false, "seconds to wait for the outcome (no limit)" }, \
	{ "json", 0, NULL, false, "the daemon's answer, as data; the exit "     \
	  "status has the outcome" },                                           \
	{ NULL },

/* Gives the command `method` with `more` (taken), its parameters, to the job that the
 * first operand names, and waits for the outcome unless told not to. An enum ctl_exit. */
int ctl_steer(struct ctl *c, const char *method, json_t *more);

#endif
