#!/bin/bash
# ranks.sh: a job on two or more GPUs beside the same on one; prints a table at its end.
#
#   ranks.sh [BIN [PART... KEY=VALUE...]]   directory of lhd and lhctl (../bin); job keys
#
# Parts, all of them by default, and what each takes of two H100:
#
#   collectives     0.3 min   what they give, of all ranks and of a part that is split off, of
#                             pieces alike and not, and their speed beside NCCL's own call
#   steps           1 min     of a 530 M model, a sequence a GPU
#   light, full     1 min     a sequence of 98,304 tokens that both share, beside one GPU with
#                             it, in each attention; and a step's collectives beside NCCL's
#   million         3 min     one of 1,048,576 tokens, with dense layers
#   million-light   1 min     the same without
#   live            1 min     a job of devices: 2 that is paused, resumed, sampled, switched,
#                             and loses a rank to kill -9; and some whose losses lie as near
#                             to those of devices: 1 as these do to each other, with other
#                             micro-batches, or deterministic: sequences of their own,
#                             shared, weights divided
#   models          0.3 min   losses and gradients of 1 and 2 ranks, with sequences of their
#                             own and with shared ones
#   million-full    4 min     that sequence with full attention: more than two of 80 GB hold,
#                             and not among the default parts
#
# gpus=4 takes as many, where there are four; collectives and bars of speed are those of
# two. With device=cpu all of it but NCCL runs on CPU ranks, slower, and no speed is a bar. Logs are
# left in $OUT where it is set.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
logs=${OUT:-$(mktemp -d)}
case " ${*:2} " in *" device=cpu "*) cpu=--cpu device=cpu times=5 ;; *) cpu= device=cuda times=1 ;; esac
case " ${*:2} " in *" gpus=4 "*) n=4 ;; *) n=2 ;; esac
bin=$(cd "${1:-$here/../bin}" && pwd) || exit 2
parts=() keys=()
for word in "${@:2}"; do
	case $word in gpus=*) ;; *=*) keys+=("$word") ;; *) parts+=("$word") ;; esac
done
[ ${#parts[@]} -gt 0 ] || parts=(collectives steps light full million million-light live models)

probe=$("$bin/lhworker-cuda" --probe)
gpus=$(sed -n 's/.*"count": *\([0-9]*\).*/\1/p' <<<"$probe")
if [ -z "$cpu" ] && [ "${gpus:-0}" -lt $n ]; then
	echo "FAILED: $n GPUs of one kind are needed: $probe"
	exit 1
fi

# ranks N SECONDS LOG PROGRAM ARGS...: under the launcher that jobs have
ranks() {
	local log=$logs/$3.log
	timeout -k 5 $(($2 * times)) "$bin/mpiexec.hydra" -launcher fork -rmk user -hosts localhost -n "$1" \
		"$here/${@:4}" >"$log" 2>&1
	local rc=$?
	grep -aE '^(ok|FAILED|error|hint|rank |[0-9]+ ranks|bench|shared|exchanges|gathers|.*, a sequence to)' "$log"
	if [ $rc != 0 ]; then
		echo "FAILED: $3: exit code $rc"
		grep -qa '^FAILED' "$log" || tail -20 "$log"
		failed=1
	fi
	return $rc
}

table=()
row() { table+=("$(printf '%-42s %s' "$1" "$2")"); }
verdict() { if [ "$1" = 0 ]; then echo ok; else echo FAILED; fi; }

# One rank of two does not get NCCL to start, while the other waits for it there.
lame() {
	timeout -k 5 60 "$bin/mpiexec.hydra" -launcher fork -rmk user -hosts localhost \
		-n 1 "$here/comm" : -n 1 -env NCCL_SOCKET_IFNAME none "$here/comm" \
		>"$logs/lame.log" 2>&1
	[ $? != 124 ] && grep -qa 'rank 1: .*NCCL does not start' "$logs/lame.log"
}

part_collectives() {
	echo "-- collectives"
	ranks 2 60 comm comm $cpu
	row "collectives, values and speed" "$(verdict $?)"
	[ -n "$cpu" ] && return
	local begun=$SECONDS rc
	lame
	rc=$?
	[ $rc = 0 ] || failed=1
	row "a rank without NCCL ends all" "$(verdict $rc), $((SECONDS - begun)) s"
}

part_steps() {
	echo "-- steps of a 530 M model"
	ranks 1 60 bench-1 ranks_bench $cpu
	ranks $n 60 bench-n ranks_bench $cpu
	ranks $n 60 bench-gradients ranks_bench $cpu gradients
	ranks $n 60 bench-weights ranks_bench $cpu weights
	read -r one all gradient weights step < <(cat "$logs/bench-1.log" "$logs/bench-n.log" | awk '
		$1 == "bench" { rate[$2 > 1] = $4; if ($2 > 1) { g = $5; w = $6; s = $3 } }
		END { print rate[0] + 0, rate[1] + 0, g + 0, w + 0, s + 0 }')
	row "tokens/s, devices: 1" "$one"
	row "tokens/s, devices: $n" "$all"
	for divide in gradients weights; do
		row "tokens/s, devices: $n, divide: $divide" "$(awk '$1 == "divided" { print $4 }' "$logs/bench-$divide.log")"
	done
	row "times as many" "$(awk "BEGIN { if ($one) printf \"%.3f\", $all / $one }") (bar of two: 1.93)"
	row "of a step's ms: gradient, weights" "$gradient + $weights of $(awk "BEGIN { print $step * 1000 }")"
	[ -n "$cpu" ] || limit "0.965 $n / times as many tokens a second" \
		"$(awk "BEGIN { if ($all) print 0.965 * $n * $one / $all }")" 1 ""
}

# part_shared NAME SECONDS: one sequence to all
part_shared() {
	echo "-- a shared sequence: $1"
	ranks $n "$2" "shared-$1" ranks_context $cpu "$1"
	row "a shared sequence, $1" "$(verdict $?)"
	read -r step rate times_one gib ms share setup < <(sed -n "s/^shared $1 //p" "$logs/shared-$1.log")
	row "  s a step, tokens/s" "${step:-} ${rate:-}"
	[ "${times_one:-0.000}" = 0.000 ] || row "  times as fast as one GPU" "$times_one"
	row "  GiB of a GPU" "${gib:-}"
	row "  ms of collectives, NCCL's own / theirs" "${ms:-} ${share:-}"
	row "  s before the first step" "${setup:-}"
}

# ---- live -------------------------------------------------------------------------
# job NAME DEVICES MICRO UNTIL STEPS KEYS: a Lighthouse phase until then, a full one of STEPS
job() {
	cat >"$dir/$1.yaml" <<END
name: $1
device: $device
devices: $2
$6
model: { vocab: 257, dim: 256, layers: 4, heads: 4, kv_heads: 2, ffn_dim: 768 }
data: { train: text.train.bin, validation: text.val.bin, seq_len: $size }
batch: { sequences: 4, micro_sequences: $3 }
optimizer: { lr: 5e-4, warmup_steps: 8 }
phases:
  - { name: light, attention: lighthouse, topk: $topk, tile: $tile, dense_layers: [0, -1], until: $4 }
  - { name: recovery, attention: full, until: { steps: $5 } }
evaluation: { sequences: 4 }
END
	submit "$dir/$1.yaml"
}
# Of rank N of the job that runs; its parent has the same name and number.
rank_pid() {
	local p parent
	for p in $(grep -lza "^PMI_RANK=$1\$" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
		grep -qa "$dir" "/proc/$p/cmdline" 2>/dev/null || continue
		parent=$(awk '/^PPid/ { print $2 }' "/proc/$p/status")
		case $(cat "/proc/$parent/comm" 2>/dev/null) in lhworker-*) echo "$p" ;; esac
	done
}
# When the first step of an attempt began, in Unix milliseconds.
begun() {
	ctl metrics live --csv --all-attempts | awk -F, -v a="$1" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
		$at["attempt"] == a { printf "%.0f", $at["time_ms"] - $at["step_ms"]; exit }'
}

live_jobs() {
	check "submit" job live 2 1 manual 40 'checkpoint: { every_steps: 20 }'
	check "it runs" ctl wait live --for step=45 --timeout 60
	check "pause" ctl pause live
	check "it is paused" ctl wait live --for state=PAUSED --timeout 10
	check "sample while it is paused" ctl sample live --prompt '#include' --tokens 8
	check "resume" ctl resume live
	killed=$(date +%s%3N)
	check "kill -9 rank 1" kill -9 "$(rank_pid 1)"
	check "it comes back from its checkpoint" ctl wait live --for step=80 --timeout 60
	back=$(awk "BEGIN { printf \"%.1f\", ($(begun 2) - $killed) / 1000 }" 2>/dev/null)
	limit "killed rank: first step of the next attempt after" "${back:-none}" 30 s
	row "seconds from kill -9 to the next step" "$back"
	check "the log says which rank" says 'rank 1 was killed by signal 9' ctl show live
	check "live switch" ctl switch live
	check "sample while it runs" ctl sample live --prompt '#include' --tokens 8
	check "it ends" ctl wait live --timeout 60
	check "as its second attempt" says '"attempt": 2,' ctl show live --json
}

# ---- losses -----------------------------------------------------------------------
losses() {
	local run name names=(ones twos fours fixed own shared weights)
	for run in 'ones 1 1' 'twos 1 2' 'fours 1 4' 'fixed 1 1 deterministic: true' \
	           "own $n 1" "shared $n 1 context: 2" \
	           "weights $n 1 divide: weights"; do
		set -- $run
		check "devices: $2, micro_sequences: $3${4:+, $4 $5}" job "$1" "$2" "$3" \
			"{ steps: $light }" $full "${*:4}"
	done
	for name in "${names[@]}"; do
		check "it ends" ctl wait $name --timeout $((60 * times))
		column $name loss >"$dir/$name.loss"
	done
	(cd "$dir" && paste "${names[@]/%/.loss}") >"$logs/losses.txt"
	# The most that those of one device lie apart, which sum in different orders, and that the
	# ranks' lie from the nearest of them, as shares of the loss.
	read -r steps spread own shared weights < <(awk '
		function abs(x) { return x < 0 ? -x : x }
		function max(x, y) { return x > y ? x : y }
		function min(x, y) { return x < y ? x : y }
		NF == 7 {
			n++
			for (i = 1; i <= 4; i++)
				for (j = 1; j < i; j++)
					s = max(s, abs($i - $j) / $1)
			for (i = 5; i <= 7; i++) {
				least = abs($i - $1)
				for (j = 2; j <= 4; j++)
					least = min(least, abs($i - $j))
				r[i] = max(r[i], least / $1)
			}
		}
		END { printf "%d %.3g %.3g %.3g %.3g\n", n, s, r[5], r[6], r[7] }' "$logs/losses.txt")
	check "losses of each" [ "$steps" = $((light + full)) ]
	bar=$(awk "BEGIN { print 1e-5 + $spread }")
	for name in own shared weights; do
		limit "losses of $n ranks, $name, from the nearest of four of devices: 1" \
			"${!name}" "$bar" ""
		row "losses, $name (of 1 from each other)" "${!name} ($spread)"
	done
	[ $failed = 0 ] || { cp "$dir"/lhd.log "$logs"; cat "$dir"/state/jobs/*/*/worker.log >"$logs/workers.log"; } 2>/dev/null
}

part_live() {
	echo "-- live jobs"
	start "$bin" "${keys[@]}"
	size=8192 topk=128 tile=32 light=60 full=40 # a quarter of what is chosen is whole tiles
	[ -z "$cpu" ] || size=512 topk=32 tile=8 light=5 full=3
	live_jobs
	losses
	row "live jobs, and all above" "$(verdict $failed)"
}

# ---- models -----------------------------------------------------------------------
part_models() {
	echo "-- models of one rank and of two"
	ranks $n 60 model-f32 ranks_model $cpu f32
	row "model, float32" "$(verdict $?)"
	if [ -z "$cpu" ]; then
		ranks $n 60 model-bf16 ranks_model bf16
		row "model, bf16" "$(verdict $?)"
	fi
}

for part in "${parts[@]}"; do
	case $part in
	collectives | steps | live | models) "part_$part" ;;
	light | full | million-light) part_shared "$part" 120 ;;
	million | million-full) part_shared "$part" 300 ;;
	*) echo "FAILED: '$part' is no part"; failed=1 ;;
	esac
done

printf '\n'
printf '%s\n' "${table[@]}" | tee "$logs/ranks.txt"
exit $failed
