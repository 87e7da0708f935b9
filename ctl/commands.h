/* commands.h: every subcommand, one a file (cmd_NAME.c); cmd_steer.c holds the
 * four that differ only in the method they call. */
#ifndef LIGHTHOUSE_COMMANDS_H
#define LIGHTHOUSE_COMMANDS_H

#include "ctl.h"

extern const struct ctl_command ctl_cmd_pack, ctl_cmd_estimate, ctl_cmd_submit,
	ctl_cmd_ls, ctl_cmd_show, ctl_cmd_watch, ctl_cmd_switch, ctl_cmd_pause,
	ctl_cmd_resume, ctl_cmd_cancel, ctl_cmd_checkpoint, ctl_cmd_wait, ctl_cmd_sample,
	ctl_cmd_metrics, ctl_cmd_events, ctl_cmd_logs, ctl_cmd_journal,
	ctl_cmd_checkpoints, ctl_cmd_verify, ctl_cmd_info, ctl_cmd_dashboard, ctl_cmd_stop,
	ctl_cmd_rule, ctl_cmd_check, ctl_cmd_version, ctl_cmd_doctor,
	ctl_cmd_completion, ctl_cmd_restart, ctl_cmd_set,
	ctl_cmd_eval, ctl_cmd_priority, ctl_cmd_annotate,
	ctl_cmd_replay, ctl_cmd_devices, ctl_cmd_export, ctl_cmd_import,
	ctl_cmd_data, ctl_cmd_ids;
/* All of them, in the order of the usage; NULL ends it. main.c. */
extern const struct ctl_command *const ctl_commands[];

/* man.c: pages in roff. */
void ctl_print_man(const struct ctl_command *k);
void ctl_print_man_of_all(void);

/* cmd_rule.c: what a condition may ask. */
extern const char ctl_rules_help[];

#endif
