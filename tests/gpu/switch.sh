#!/bin/bash
# switch.sh: how long a large model takes from the command to the first step of the
# next phase, beside stopping its worker and starting it again, as one must where
# phases are the command line's.
#
#   switch.sh [BIN [KEY=VALUE...]]     directory of lhd and lhctl (../bin); job keys
#
# 530 M parameters at 98,304 tokens: about 64 GiB of the GPU, 16 GB of host memory and
# 20 GB of disk in $TMPDIR, two minutes. The bar: 2 s.
set -u
. "$(dirname "$0")/lib.sh"
start "$@"

large manual
cat >>"$dir/job.yaml" <<END
  - { name: recovery, attention: full, until: { steps: 6 } }
checkpoint: { every_steps: 1000, keep: 1 }
END

now_ms() { date +%s%3N; }
# When the first step with VALUE in COLUMN began, in Unix milliseconds.
begun() {
	ctl metrics large --csv --all-attempts | awk -F, -v c="$1" -v v="$2" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
		$at[c] == v { printf "%.0f", $at["time_ms"] - $at["step_ms"]; exit }'
}
seconds() { awk "BEGIN { printf \"%.2f\", ($2 - $1) / 1000 }"; }

check "submit" submit "$dir/job.yaml" || exit 1
check "12 steps" ctl wait large --for step=12 --timeout 600

asked=$(now_ms) worker=$(pid_of large)
check "stop its worker" ctl pause large --release
check "it has ended" ended "$worker"
check "start it again" ctl resume large
check "four more steps" ctl wait large --for step=17 --timeout 300
again=$(seconds "$asked" "$(begun attempt 2)")

asked=$(now_ms)
check "switch" ctl switch large
check "it ends" ctl wait large --timeout 300
switched=$(seconds "$asked" "$(begun phase 1)")

limit "switch: first step of recovery begins after" "$switched" 2 s
echo "   stopped and started again, in the same phase: first step after $again s"
exit $failed
