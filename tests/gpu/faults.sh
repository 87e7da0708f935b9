#!/bin/bash
# faults.sh: what saves and a released pause cost a large model, beside their limits:
# how long training stands still for a save and how much slower the ten steps after it
# are, what a loop around the steps takes, and what `pause --release` leaves on the GPU.
#
#   faults.sh [BIN [KEY=VALUE...]]     directory of lhd and lhctl (../bin); job keys
#
# 530 M parameters at 98,304 tokens: about 48 GiB of the GPU, 16 GB of host memory and
# 20 GB of disk in $TMPDIR, three minutes.
set -u
. "$(dirname "$0")/lib.sh"

gpu_mib() { # used on the device, by whomever
	nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null | head -1
}
before=$(gpu_mib)
start "$@"

large '{ steps: 64 }'
echo 'checkpoint: { every_steps: 20, keep: 1 }' >>"$dir/job.yaml"

# Milliseconds a step, of those from FROM to TO.
mean() {
	column large step_ms --from "$1" --to "$2" |
		awk '{ s += $1 } END { if (NR) printf "%.3f", s / NR }'
}
# Wall-clock between the ends of steps FROM and TO, each.
interval() {
	column large time_ms --from "$1" --to "$2" |
		awk 'NR == 1 { a = $1 } { b = $1 } END { if (NR > 1) printf "%.3f", (b - a) / (NR - 1) }'
}
percent() { awk "BEGIN { printf \"%.2f\", 100 * ($1 - $2) / $2 }"; }
# stall_ms of the save of a step
stall() {
	ctl events large --json | sed -n "s/.*\"step\":$1,.*\"stall_ms\":\([0-9.]*\).*/\1/p" |
		head -1 | xargs -r printf %.1f
}

check "submit" submit "$dir/job.yaml" || exit 1
check "40 steps" ctl wait large --for step=52 --timeout 900
for at in 20 40; do
	ten=$(mean $((at - 9)) $at) next=$(mean $((at + 1)) $((at + 10)))
	limit "save at step $at: training stands still" "$(stall $at)" 1000 ms
	limit "the ten steps after it (${ten} ms before, ${next} ms after): slower by" \
		"$(percent "$next" "$ten")" 5 %
done
step=$(mean 22 39) whole=$(interval 21 39)
limit "from step to step ${whole} ms, of them step ${step} ms: the rest" \
	"$(percent "$whole" "$step")" 1 %

worker=$(pid_of large)
check "pause --release" ctl pause large --release
check "its worker has ended" ended "$worker"
if [ -n "$before" ]; then
	limit "left on the GPU" $(($(gpu_mib) - before)) 600 MiB
else
	echo "FAILED: no nvidia-smi: what is left on the GPU was not measured"; failed=1
fi
check "resume in place" ctl resume large
check "it ends" ctl wait large --timeout 900
ctl checkpoints large
exit $failed
