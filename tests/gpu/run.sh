#!/bin/sh
# run.sh: the tests and timings that need a GPU, from a tree that `make dist` made.
#
#   tests/run.sh [MODE] [ARGS...]
#
#   test        ops, model, bits that repeat, a million tokens, live jobs, vectors
#   bench       a layer and whole steps beside their limits; ARGS: lengths of the layer
#   all         both (without a MODE too)
#   profile     20 steps op by op, and how long the GPU stood idle; ARGS: names of steps
#   faults      what saves and a released pause cost a 530 M model; ARGS: job keys
#   switch      a live switch of a 530 M model beside a stop and a start; ARGS: job keys
#   ranks       two or four GPUs: collectives, equality with one, live jobs, speed, a million tokens;
#               ARGS: some of its parts, job keys; see ranks.sh
#   sanitize    compute-sanitizer over our kernels; ARGS: memcheck or racecheck
#
# Needs a driver, cuBLASLt and cuDNN of CUDA 13 on this host (and NCCL), no compiler. Their
# directories are found beside the toolkit or in Python's nvidia packages; set
# LD_LIBRARY_PATH for any other place. Writes layer.json and step.json to $OUT when it is set.
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-all}
[ $# -gt 0 ] && shift

# find_lib NAME: directory of a library that the loader does not know itself.
find_lib() {
	ldconfig -p 2>/dev/null | grep -q "$1" && return
	for d in /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64 \
	         /usr/lib/x86_64-linux-gnu /opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib \
	         /usr/lib/python3*/*-packages/nvidia/*/lib \
	         /usr/local/lib/python3*/*-packages/nvidia/*/lib; do
		[ -e "$d/$1" ] && { printf %s "$d"; return; }
	done
}
for lib in libcublasLt.so.13 libcudnn.so.9 libnccl.so.2; do
	dir=$(find_lib $lib)
	[ -n "$dir" ] && LD_LIBRARY_PATH=$dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH

status=0
section() {
	printf '\n== %s\n' "$1"
	shift
	"$@" || { status=1; printf 'FAILED: %s\n' "$*"; }
}

tests() {
	section "ops against the CPU" "$here/ops"
	section "the model against the CPU" "$here/model"
	section "bits that repeat" "$here/deterministic"
	section "a million tokens" "$here/large"
	section "live jobs" "$here/live.sh"
	section "recorded vectors" "$here/lighthouse-vectors" --device cuda "$here"/vectors/*.safetensors
}
benches() {
	section "one layer" "$here/bench_layer" ${OUT:+--json "$OUT/layer.json"} "$@"
	section "whole steps" "$here/bench_step" ${OUT:+--json "$OUT/step.json"}
}

case $what in
test) tests ;;
bench) benches "$@" ;;
all) tests; benches "$@" ;;
profile)
	[ $# -gt 0 ] || set -- 268m 530m
	section "where steps go" "$here/bench_step" --profile ${OUT:+--json "$OUT/profile.json"} "$@" ;;
faults) section "saves and a released pause" "$here/faults.sh" "$here/../bin" "$@" ;;
switch) section "a switch" "$here/switch.sh" "$here/../bin" "$@" ;;
ranks) section "several GPUs" "$here/ranks.sh" "$here/../bin" "$@" ;;
sanitize) section "compute-sanitizer" "$here/sanitize.sh" "$@" ;;
*)
	echo "error: '$what' is not known" >&2
	sed -n 's/^#   //p' "$0" >&2
	exit 2 ;;
esac
exit $status
