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
start "${1:-}"
set=()
for s in "${@:2}"; do set+=(--set "$s"); done

cat >"$dir/job.yaml" <<END
name: large
device: cuda
model: { preset: llama-530m }
data: { train: text.train.bin, seq_len: 98304 }
batch: { sequences: 1 }
optimizer: { lr: 1e-4, warmup_steps: 10 }
phases:
  - { name: light, attention: lighthouse, dense_layers: [0, 1, -2, -1], until: { steps: 64 } }
checkpoint: { every_steps: 20, keep: 1 }
END

# mean COLUMN FROM TO, of the steps that stand
mean() {
	ctl metrics large --csv --from "$2" --to "$3" |
		awk -F, -v c="$1" 'NR > 1 { s += $c; n++ } END { if (n) printf "%.3f", s / n }'
}
# Wall-clock between the ends of steps FROM and TO, each.
interval() {
	ctl metrics large --csv --from "$1" --to "$2" |
		awk -F, 'NR == 2 { a = $4 } { b = $4; n++ } END { if (n > 2) printf "%.3f", (b - a) / (n - 2) }'
}
percent() { awk "BEGIN { printf \"%.2f\", 100 * ($1 - $2) / $2 }"; }
# stall_ms of the save of a step
stall() {
	ctl events large --json | sed -n "s/.*\"step\":$1,.*\"stall_ms\":\([0-9.]*\).*/\1/p" |
		head -1 | xargs -r printf %.1f
}

check "submit" ctl submit "$dir/job.yaml" "${set[@]}" || exit 1
check "40 steps" ctl wait large --for step=52 --timeout 900
for at in 20 40; do
	ten=$(mean 9 $((at - 9)) $at) next=$(mean 9 $((at + 1)) $((at + 10)))
	limit "save at step $at: training stands still" "$(stall $at)" 1000 ms
	limit "the ten steps after it (${ten} ms before, ${next} ms after): slower by" \
		"$(percent "$next" "$ten")" 5 %
done
step=$(mean 9 22 39) whole=$(interval 21 39)
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
