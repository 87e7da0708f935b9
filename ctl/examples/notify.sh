#!/bin/bash
# notify.sh: run a command for every change of a job's state.
#
#   notify.sh FILE COMMAND [ARGS]
#
# COMMAND gets one more argument, as "job 7: STOPPING -> DONE (all phases ended)". FILE
# keeps the id of the newest event told, so that the next run goes on behind it: a unit
# with Restart=always, or a loop, misses nothing. Only those who may look at jobs are
# needed; notify-hook.sh is for who may add rules. Ends with 3 when lhd ends.
#
#   notify.sh ~/.lighthouse-told notify-send Lighthouse
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1
shift
told=$(cat "$file" 2>/dev/null || :)

lhctl events -f --kind job.state ${told:+--since "$told"} |
	while IFS=$'\t' read -r id _ job _ _ text; do
		"$@" "job $job: $text" </dev/null || echo "notify: failed: $* 'job $job: $text'" >&2
		echo "$id" >"$file"
	done
