#!/bin/bash
# demo.sh: the main job, end to end, with its own daemon: pack real text, train
# with Lighthouse attention, switch live to full attention, sample.
#
#   DEMO_TEXT=DIR  text to train on (.txt .md .c .h .jsonl); default: C headers
#   DEMO_DIR=DIR   where everything goes; emptied first (BUILD/demo)
#   DEMO_STEPS=N   Lighthouse steps before the switch, three fifths as many after it
#   LH_BUILD=DIR   the build to use (build)
#
# Ends the daemon it started in every case, Ctrl-C included.
set -u
build=${LH_BUILD:-build}
here=$(cd "$(dirname "$0")" && pwd)
dir=${DEMO_DIR:-$build/demo}
text=${DEMO_TEXT:-/usr/include}
switch_at=${DEMO_STEPS:-150} # step at which this script asks for recovery

bin=$build/bin
daemon=

die() { printf 'demo: %s\n' "$1" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }
ctl() { "$bin/lhctl" --state "$state" "$@"; }

# The daemon runs in a session of its own, so that Ctrl-C reaches this script
# alone; SIGTERM then makes it stop its workers before it ends.
finish() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$daemon" ] && kill -TERM "$daemon" 2>/dev/null; then
		[ $status -ge 128 ] && echo && echo "stopping ..."
		wait "$daemon" 2>/dev/null
	fi
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A demo of before that was killed outright may have left its daemon.
if [ -S "$dir/state/control.sock" ]; then
	"$bin/lhctl" --state "$dir/state" stop >/dev/null 2>&1
fi
rm -rf "$dir" && mkdir -p "$dir" || die "cannot write '$dir'"
state=$(cd "$dir" && pwd)/state

[ -d "$text" ] || die "no such directory: '$text' (set DEMO_TEXT=DIR)"
say "Packing text from $text"
"$bin/lhctl" pack -o "$dir/text" --max-bytes 12000000 --validation-bytes 400000 \
	--ext .txt,.md,.c,.h,.jsonl --stats "$text" | tee "$dir/pack.txt"
[ "${PIPESTATUS[0]}" = 0 ] || die "packing failed"

say "Starting lhd (log: $dir/lhd.log)"
setsid "$bin/lhd" --state "$state" 2>"$dir/lhd.log" &
daemon=$!
for _ in $(seq 100); do
	ctl info >/dev/null 2>&1 && break
	kill -0 "$daemon" 2>/dev/null || { cat "$dir/lhd.log" >&2; die "lhd did not start"; }
	read -rt 0.1 <> <(:) || :
done

say "Submitting ctl/examples/demo.yaml: Lighthouse attention, then recovery"
cp "$here/demo.yaml" "$dir/demo.yaml"
ctl submit "$dir/demo.yaml" --set phases.recovery.until.steps=$((switch_at * 3 / 5)) || exit 1

say "Training (lhctl watch; at step $switch_at: lhctl switch demo recovery)"
(ctl wait demo --for step=$switch_at >/dev/null &&
	ctl switch demo recovery -m "the demo shows a live switch" >"$dir/switch.txt" 2>&1) &
ctl watch demo
ctl wait demo >/dev/null || { ctl show demo; die "the job did not end well"; }
cat "$dir/switch.txt"

say "Validation loss, full attention (nats a byte)"
ctl show demo --evaluations
grep -iE 'unigram|bigram|trigram' "$dir/pack.txt"

say "A sample (lhctl sample demo)"
ctl sample demo --tokens 300 --prompt '#include <' --seed 7
echo

say "Done"
echo "database:    $state/lighthouse.db   (sqlite3 -readonly FILE 'select step, loss from steps')"
echo "checkpoints: $state/jobs/1/checkpoints"
