#!/bin/bash
# plateau.sh: switch a job to another phase once its validation loss is flat.
#
#   plateau.sh JOB PHASE [STEPS [SHARE]]
#
# Flat: over the last STEPS (500) steps the loss with full attention fell by less than
# SHARE (0.005) of itself. It is looked at ten times in as many steps; the job should be
# evaluated at least as often (evaluation.every_steps). plateau-rule.sh has lhd do the
# same, without a script that must stay alive.
#
# Exit status: lhctl's, so 0 once it is switched, 5 if the job ended first. Run again it
# changes nothing: the request has the same id.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
job=$1 phase=$2 steps=${3:-500} share=${4:-0.005}
every=$((steps < 10 ? 1 : steps / 10))

# The newest loss beside the newest of at least $steps steps before it.
is_flat() {
	lhctl metrics "$job" --kind evals --csv | awk -F, -v steps="$steps" -v share="$share" '
		NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
		$col["attention"] == "\"full\"" && $col["set_no"] == 0 {
			at[++n] = $col["step"]; loss[n] = $col["loss"]
		}
		END {
			for (i = n; i > 1 && at[n] - at[i] < steps;) i--
			exit !(n && at[n] - at[i] >= steps && loss[n] > loss[i] * (1 - share))
		}'
}

id=$(lhctl show "$job" | awk 'NR == 1 { print $2 }') # names come again, numbers do not
step=$(lhctl metrics "$id" --points 1 | cut -f 2)
until is_flat; do
	step=$((step + every))
	lhctl wait "$id" --for "step=$step" >/dev/null
done
lhctl switch "$id" "$phase" --request-id "plateau-$id-$phase" \
	-m "validation loss fell by less than $share in $steps steps"
