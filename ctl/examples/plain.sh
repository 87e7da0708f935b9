#!/bin/bash
# plain.sh: train a job on several hosts with nothing but ssh.
#
#   plain.sh JOB.yaml HOST...
#
# A rank a HOST, in that order; a host with several GPUs is named so many times. The first is
# this one, where lhd runs:
#
#   plain.sh job.yaml node1 node1 node2 node2
#
# Hosts need the programs in ssh's PATH, MPICH and the data; checkpoints are the first one's.
# LH_ADDRESS (the first address of this host) is where the ranks meet, LH_PORT (29400) the
# port. When a rank is lost all are started again, as long as the job goes on. Exit status:
# lhctl's, so 0 trained to its end, 5 it failed or was cancelled; 2 when a rank was refused,
# which another try would not mend: then the job is cancelled.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1
shift
address=${LH_ADDRESS:-$(hostname -I | awk '{ print $1 }')}:${LH_PORT:-29400}
job=$(lhctl submit "$file" --set "devices=$#" --set "join=$address" | awk '{ print $2 }')
join=$(dirname "$(lhctl info | sed -n 's/^database: //p')")/jobs/$job/join
worker=lhworker-$(sed -n 's/.*"device": "\(.*\)".*/\1/p' "$join")

# One rank of its host. The file goes in by stdin: no command line has the token.
start() {
	ssh "$1" "f=\$(mktemp) && cat >\$f && LH_LAUNCHER=plain RANK=$2 WORLD_SIZE=$3" \
		"LOCAL_RANK=$4 $worker --join \$f; s=\$?; rm -f \$f; exit \$s" <"$join"
}

status=4
while [ $status = 4 ]; do
	declare -A on=()
	rank=0
	for host; do
		start "$host" "$rank" $# "${on[$host]:-0}" &
		on[$host]=$((${on[$host]:-0} + 1)) rank=$((rank + 1))
	done
	status=0
	for pid in $(jobs -p); do
		wait "$pid" || status=$?
		[ $status != 2 ] || break
	done
	[ $status != 2 ] || { lhctl cancel "$job" -m "a rank was refused"; exit 2; }
	status=0
	lhctl wait "$job" --timeout 5 >/dev/null || status=$?
done
exit $status
