#!/bin/bash
# sweep.sh: run a job once for each of several k, then compare the validation losses.
#
#   sweep.sh JOB.yaml PHASE K...
#
# k is the `topk` of the Lighthouse phase PHASE. Prints k, job and the last loss with full
# attention, best first. Run again it waits for the same jobs: ids of requests are made of
# the file and k. Exit status: lhctl's; 5 if one of the jobs did not end well.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1 phase=$2
shift 2
sum=$(sha256sum "$file" | cut -c 1-16)

declare -A job
for k; do
	job[$k]=$(lhctl submit "$file" --set "name=sweep-k$k" --set "phases.$phase.topk=$k" \
		--request-id "sweep-$sum-$phase-k$k" -m "sweep over k" | awk '{ print $2 }')
done

status=0 rows=
for k; do
	if lhctl wait "${job[$k]}" >/dev/null; then
		loss=$(lhctl metrics "${job[$k]}" --kind evals --csv | awk -F, '
			NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
			$col["attention"] == "\"full\"" && $col["set_no"] == 0 { loss = $col["loss"] }
			END { print loss }')
		rows+="$k"$'\t'"${job[$k]}"$'\t'"$loss"$'\n'
	else
		status=$?
		[ $status = 5 ] || exit $status
		echo "sweep: job ${job[$k]} of k = $k did not end well; 'lhctl show' tells why" >&2
	fi
done
printf %s "$rows" | sort -t $'\t' -k 3,3g
exit $status
