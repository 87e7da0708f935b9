/* steer.h: commands that a job carries out, for the subcommands that give one. */
#ifndef LIGHTHOUSE_CTL_STEER_H
#define LIGHTHOUSE_CTL_STEER_H

#include "ctl.h"

/* The options that all of them have; end a table with them. */
#define CTL_STEER_OPTIONS                                                      \
	CTL_OPTION_MESSAGE,                                                    \
	CTL_OPTION_NO_WAIT("for the outcome"),                                 \
	CTL_OPTION_REQUEST_ID,                                                 \
	{ "timeout", 0, "S", false, "seconds to wait for the outcome (no limit)" }, \
	{ "json", 0, NULL, false, "the daemon's answer, as data; the exit "    \
	  "status has the outcome" },                                          \
	{ NULL },

/* Gives the command `method` with `more` (taken), its parameters, to the job that the
 * first operand names, and waits for the outcome unless told not to. An enum ctl_exit. */
int ctl_steer(struct ctl *c, const char *method, json_t *more);

#endif
