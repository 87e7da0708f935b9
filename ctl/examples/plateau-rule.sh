#!/bin/bash
# plateau-rule.sh: have lhd switch a job to another phase once its validation loss is flat.
#
#   plateau-rule.sh JOB PHASE [STEPS [SHARE]]
#
# As plateau.sh, but as a rule: it survives restarts of lhd, fires once, and the journal
# has the values that fired it. `lhctl rule rm JOB plateau` takes it away.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
job=$1 phase=$2 steps=${3:-500} share=${4:-0.005}

id=$(lhctl show "$job" | awk 'NR == 1 { print $2 }')
lhctl rule add "$id" plateau --request-id "plateau-rule-$id-$phase" \
	--when "improvement($steps) < $share" --do "switch $phase" \
	-m "switch to $phase when the loss is flat"
