#!/bin/bash
# run.sh: Lighthouse and then full attention against full attention from scratch,
# on one GPU: the runs behind quality.md.
#
#   run.sh TEXT_DIR OUT_DIR [BIN]     BIN: where lhd and lhctl are (build/bin)
#
# About 12 minutes on an H100. Leaves NAME.csv and NAME.json in OUT_DIR; plot.mjs
# makes the table and the figure of them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
text=$1 out=$2 bin=${3:-build/bin}
mkdir -p "$out"
ctl() { "$bin/lhctl" --state "$out/state" "$@"; }

"$bin/lhctl" pack -o "$out/text" --validation-bytes 2000000 "$text"
cp "$here"/*.yaml "$out"
"$bin/lhd" --state "$out/state" 2>"$out/lhd.log" &
trap 'ctl stop >/dev/null 2>&1; wait' EXIT
for _ in $(seq 300); do ctl info >/dev/null 2>&1 && break; read -rt 0.1 <> <(:) || :; done
for job in light full; do
	ctl submit "$out/$job.yaml"
	ctl wait $job
	ctl metrics $job --csv >"$out/$job.csv"
	ctl show $job --json >"$out/$job.json"
done
