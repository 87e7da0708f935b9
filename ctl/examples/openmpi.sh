#!/bin/bash
# openmpi.sh: train a job by ranks that Open MPI's mpirun starts.
#
#   openmpi.sh JOB.yaml RANKS [OPTIONS OF mpirun]
#
# On the host where lhd runs, which has to be the first of mpirun's, too:
#
#   openmpi.sh job.yaml 16 --hostfile hosts --map-by ppr:8:node
#
# Hosts need the programs, MPICH (which carries the ranks' words, whoever starts them) and the
# data; checkpoints are the first one's. LH_SHARED (your home) is a directory that they share:
# a copy of the join file goes there. LH_ADDRESS (the first address of this host) is where the
# ranks meet, LH_PORT (29400) the port. When a rank is lost mpirun is called again, as long as
# the job goes on. Exit status: lhctl's, so 0 trained to its end, 5 it failed or was cancelled;
# 2 when a rank was refused, which another try would not mend: then the job is cancelled.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1 ranks=$2
shift 2
address=${LH_ADDRESS:-$(hostname -I | awk '{ print $1 }')}:${LH_PORT:-29400}
job=$(lhctl submit "$file" --set "devices=$ranks" --set "join=$address" | awk '{ print $2 }')
join=$(dirname "$(lhctl info | sed -n 's/^database: //p')")/jobs/$job/join
worker=$(command -v "lhworker-$(sed -n 's/.*"device": "\(.*\)".*/\1/p' "$join")")

copy=$(mktemp "${LH_SHARED:-$HOME}/lighthouse-join-XXXXXX")
trap 'rm -f "$copy"' EXIT
cat "$join" >"$copy"
export LH_LAUNCHER=openmpi # whatever a batch around it says
status=4
while [ $status = 4 ]; do
	status=0
	mpirun -n "$ranks" -x LH_LAUNCHER "$@" "$worker" --join "$copy" || status=$?
	[ $status != 2 ] || { lhctl cancel "$job" -m "a rank was refused"; exit 2; }
	status=0
	lhctl wait "$job" --timeout 5 >/dev/null || status=$?
done
exit $status
