#!/bin/bash
# live.sh: a two-phase job on the GPU, steered as on the CPU: submitted to lhd,
# paused, resumed, switched while it runs, sampled, ended; its worker killed once.
#
#   live.sh [BIN]     directory of lhd and lhctl (../bin)
set -u
bin=$(cd "${1:-$(dirname "$0")/../bin}" && pwd)
dir=$(mktemp -d)
failed=0

ctl() { timeout 120 "$bin/lhctl" --state "$dir/state" "$@"; }
check() { # WHAT COMMAND...
	local what=$1
	shift
	if "$@" >"$dir/out" 2>&1; then echo "ok: $what"; else
		echo "FAILED: $what: $*"; tail -5 "$dir/out"; failed=1
	fi
}
says() { grep -q "$1" <<<"$("${@:2}" 2>&1)"; }
finish() { ctl stop >/dev/null 2>&1; wait; rm -rf "$dir"; }
trap finish EXIT

"$bin/lhctl" pack -o "$dir/text" --max-bytes 8000000 --validation-bytes 100000 --ext .h \
	/usr/include >/dev/null || exit 1
cat >"$dir/job.yaml" <<END
name: live
device: cuda
model: { vocab: 257, dim: 256, layers: 4, heads: 4, ffn_dim: 768 }
data: { train: text.train.bin, validation: text.val.bin, seq_len: 8192 }
batch: { sequences: 2, micro_sequences: 1 }
optimizer: { lr: 1e-3, warmup_steps: 20 }
phases:
  - { name: light, attention: lighthouse, topk: 128, dense_layers: [0, -1], until: manual }
  - { name: recovery, attention: full, until: { steps: 40 } }
evaluation: { sequences: 4 }
checkpoint: { every_steps: 50 }
END
"$bin/lhd" --state "$dir/state" 2>"$dir/lhd.log" &
for _ in $(seq 300); do ctl info >/dev/null 2>&1 && break; read -rt 0.1 <> <(:); done

check "lhd knows the GPU" says 'GPU: NVIDIA' ctl info
check "submit" ctl submit "$dir/job.yaml"
check "it runs" ctl wait live --for step=60 --timeout 90
check "pause" ctl pause live
check "resume" ctl resume live
pkill -9 -f 'lhworker-cuda --attempt'
check "a killed worker comes back" ctl wait live --for step=120 --timeout 90
check "live switch" ctl switch live
check "sample while it runs" ctl sample live --prompt '#include' --tokens 32
check "it ends" ctl wait live --timeout 90
check "sample from its checkpoint" ctl sample live --prompt '#include' --tokens 16
ctl show live | tail -25
ctl events live | tail -30
exit $failed
