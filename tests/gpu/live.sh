#!/bin/bash
# live.sh: jobs on the GPU by lhd, steered as on the CPU. A job of two phases is
# submitted, paused, resumed, switched while it runs, sampled, ended; its worker
# killed once. Another lhd's job waits for the GPU meanwhile, and gets it. Then a
# deterministic one, undisturbed and with its worker killed half-way: every loss must
# be the same.
#
#   live.sh [BIN [KEY=VALUE...]]     directory of lhd and lhctl (../bin); job keys
set -u
. "$(dirname "$0")/lib.sh"
start "$@"

# job NAME UNTIL STEPS KEYS: a Lighthouse phase until then, a full one of STEPS
job() {
	cat >"$dir/$1.yaml" <<END
name: $1
device: cuda
$4
model: { vocab: 257, dim: 256, layers: 4, heads: 4, kv_heads: 2, ffn_dim: 768 }
data: { train: text.train.bin, validation: text.val.bin, seq_len: 8192 }
batch: { sequences: 2, micro_sequences: 1 }
optimizer: { lr: 1e-3, warmup_steps: 20 }
phases:
  - { name: light, attention: lighthouse, topk: 128, dense_layers: [0, -1], until: $2 }
  - { name: recovery, attention: full, until: { steps: $3 } }
evaluation: { sequences: 4 }
END
	submit "$dir/$1.yaml"
}
# Step, loss and gradient norm of the line that stands, to all their digits.
losses() { ctl metrics "$1" --csv | cut -d, -f2,5,6; }
same_losses() { [ "$(losses "$1" | wc -l)" = 301 ] && diff <(losses "$1") <(losses "$2"); }

other() { timeout 900 "$bin/lhctl" --state "$dir/other" "$@"; }
trap 'other stop >/dev/null 2>&1; finish' EXIT
# Polls until a command says something.
until_says() { for _ in $(seq 300); do says "$@" && return; wait_ms 100; done; return 1; }

case " ${set[*]-} " in *device=cpu*) ;; *)
	check "lhd knows the GPU" says 'GPU: NVIDIA' ctl info ;;
esac
check "submit" job live manual 40 'checkpoint: { every_steps: 50 }' || exit 1
check "it runs" ctl wait live --for step=60 --timeout 90
check "pause" ctl pause live
check "resume" ctl resume live
kill -9 "$(pid_of live)"
check "a killed worker comes back" ctl wait live --for step=120 --timeout 90
"$bin/lhd" --state "$dir/other" 2>"$dir/other.log" &
for _ in $(seq 300); do other info >/dev/null 2>&1 && break; wait_ms 100; done
check "submit to another lhd" other submit "$dir/live.yaml" "${set[@]}"
case " ${set[*]-} " in *device=cpu*) ;; *)
	check "its job waits, and knows for whom" until_says "waits: .*$dir/state'" other show live ;;
esac
check "live switch" ctl switch live
check "sample while it runs" ctl sample live --prompt '#include' --tokens 32
check "it ends" ctl wait live --timeout 90
check "the other lhd's job runs" other wait live --for step=1 --timeout 90
check "and can be cancelled" other cancel live
check "sample from its checkpoint" ctl sample live --prompt '#include' --tokens 16
ctl show live | tail -25
ctl events live | tail -30

fixed=$'deterministic: true\ncheckpoint: { every_steps: 25 }'
check "a deterministic job" job whole '{ steps: 200 }' 100 "$fixed"
check "it ends" ctl wait whole --timeout 300
check "the same again" job broken '{ steps: 200 }' 100 "$fixed"
for at in 37 230; do # in either phase, between two checkpoints
	check "step $at" ctl wait broken --for step=$at --timeout 300
	kill -9 "$(pid_of broken)"
done
check "it ends, killed twice" ctl wait broken --timeout 300
check "300 losses are the same, bit for bit" same_losses whole broken
check "its worker was lost twice" says '"attempt": 3,' ctl show broken --json
exit $failed
