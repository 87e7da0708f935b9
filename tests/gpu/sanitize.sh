#!/bin/bash
# sanitize.sh: compute-sanitizer over our own kernels, by name: memcheck on every op,
# racecheck on those that share memory within a block.
#
#   sanitize.sh [memcheck|racecheck]     both by default
#
# Needs compute-sanitizer of the CUDA toolkit on PATH or under /usr/local/cuda. The
# names are those of kernels.txt, which `make dist` takes from the source. The
# cross-entropy is left out of racecheck: the sanitizer fails inside cuBLAS there.
set -u
here=$(cd "$(dirname "$0")" && pwd)
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)
if [ -z "$sanitizer" ]; then
	echo "error: there is no compute-sanitizer" >&2
	echo "hint: it is in the CUDA toolkit; put it on PATH" >&2
	exit 2
fi
ours=()
while read -r name; do ours+=(--kernel-name "kns=$name"); done <"$here/kernels.txt"
failed=0

# run TOOL [CASES]: the ops whose name contains CASES
run() {
	printf '== %s %s\n' "$1" "${2:-all ops}"
	"$sanitizer" --tool "$1" "${ours[@]}" --error-exitcode 99 --print-limit 20 \
		"$here/ops" "${@:2}" | grep -v '^cuda'
	[ "${PIPESTATUS[0]}" = 0 ] || { failed=1; echo "FAILED: $1 ${2:-all ops}"; }
}

[ "${1:-memcheck}" = memcheck ] && run memcheck
if [ "${1:-racecheck}" = racecheck ]; then
	for cases in score select gather scatter norm swiglu embed adamw rope cast sdpa; do
		run racecheck $cases
	done
fi
exit $failed
