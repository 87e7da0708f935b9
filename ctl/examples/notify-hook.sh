#!/bin/bash
# notify-hook.sh: tell somebody when a job is done or needs them. A rule runs it:
#
#   install -D -m 700 notify-hook.sh STATE/hooks/notify.sh
#   lhctl rule add JOB tell --on 'job.*' --do 'exec notify.sh'
#
# The event comes as a line of JSON on stdin: {"rule", "job", "event": {"id", "kind",
# "text", "data", ...}}. The environment is PATH, LANG and LIGHTHOUSE_STATE: what else is
# needed stands here. One that a crash cut short runs again, with the same event id.
set -euo pipefail
read -r event

case $event in
*'"kind":"job.held"'* | *'"to":"DONE"'* | *'"to":"FAILED"'*) ;;
*) exit 0 ;;
esac
# In its place: mail -s Lighthouse you@example.org, or curl -sf --json @- https://...
printf '%s\n' "$event" >>"$LIGHTHOUSE_STATE/notices.jsonl"
