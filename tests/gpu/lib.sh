# lib.sh: an lhd of their own for the scripts beside it; bash, sourced.
#
#   start [BIN [KEY=VALUE...]]     programs (../bin), an empty $dir with text in it, lhd;
#                    stopped at exit. The keys are for `submit`.
#   large UNTIL      into $dir/job.yaml: 530 M parameters at 98,304 tokens, a Lighthouse
#                    phase until then; the caller adds what comes after it
#   ctl ARGS...      lhctl with that state
#   pid_of JOB, ended PID          of a worker
#   check WHAT CMD.. runs CMD, tells how it went; 1, and failed=1, if it did not go well
#   limit WHAT VALUE MOST UNIT     the same of a number
failed=0

start() {
	bin=$(cd "${1:-$(dirname "$0")/../bin}" && pwd) || exit 2
	dir=$(mktemp -d)
	trap finish EXIT
	set=()
	for s in "${@:2}"; do set+=(--set "$s"); done
	"$bin/lhctl" pack -o "$dir/text" --max-bytes 8000000 --validation-bytes 100000 --ext .h \
		/usr/include >/dev/null || exit 1
	"$bin/lhd" --state "$dir/state" 2>"$dir/lhd.log" &
	for _ in $(seq 300); do ctl info >/dev/null 2>&1 && break; wait_ms 100; done
}
# column JOB NAME ARGS...: its values, one a line; ARGS of `lhctl metrics`
column() {
	ctl metrics "$1" --csv "${@:3}" | awk -F, -v c="$2" '
		NR == 1 { for (i = 1; i <= NF; i++) if ($i == c) at = i; next } { print $at }'
}
submit() { ctl submit "$1" "${set[@]}"; }
large() {
	cat >"$dir/job.yaml" <<END
name: large
device: cuda
model: { preset: llama-530m }
data: { train: text.train.bin, seq_len: 98304 }
batch: { sequences: 1 }
optimizer: { lr: 1e-4, warmup_steps: 10 }
phases:
  - { name: light, attention: lighthouse, dense_layers: [0, 1, -2, -1], until: $1 }
END
}
finish() { ctl stop >/dev/null 2>&1; wait; rm -rf "$dir"; }
ctl() { timeout 900 "$bin/lhctl" --state "$dir/state" "$@"; }
wait_ms() { read -rt "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))" <> <(:); }

check() {
	local what=$1
	shift
	if "$@" >"$dir/out" 2>&1; then echo "ok: $what"; else
		echo "FAILED: $what: $*"; tail -5 "$dir/out"; failed=1
		return 1
	fi
}
limit() {
	if awk "BEGIN { exit !(($2) + 0 == ($2) && ($2) <= ($3)) }" 2>/dev/null; then
		echo "ok: $1: $2 $4, at most $3"
	else
		echo "FAILED: $1: $2 $4, at most $3"; failed=1
	fi
}
says() { grep -q "$1" <<<"$("${@:2}" 2>&1)"; }
# The process of a job's newest worker.
pid_of() { ctl show "$1" --json | sed -n 's/^ *"pid": \([0-9]*\),$/\1/p' | tail -1; }
# Waits for it at most 20 s.
ended() {
	for _ in $(seq 200); do [ -d "/proc/$1" ] || return 0; wait_ms 100; done
	return 1
}
