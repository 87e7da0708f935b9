#!/bin/sh
# run.sh: the tests and timings that need a GPU, from a tree that `make dist` made.
#
#   tests/run.sh [test|bench|all] [N...]    N: lengths for the timings
#
# Needs a driver, cuBLASLt and cuDNN of CUDA 13 on this host, no compiler. Their
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
for lib in libcublasLt.so.13 libcudnn.so.9; do
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

if [ "$what" != bench ]; then
	section "ops against the CPU" "$here/ops"
	section "the model against the CPU" "$here/model"
	section "a million tokens" "$here/large"
	section "a live job" "$here/live.sh"
	section "recorded vectors" "$here/lighthouse-vectors" --device cuda "$here"/vectors/*.safetensors
fi
if [ "$what" != test ]; then
	section "one layer" "$here/bench_layer" ${OUT:+--json "$OUT/layer.json"} "$@"
	section "whole steps" "$here/bench_step" ${OUT:+--json "$OUT/step.json"}
fi
exit $status
