#!/bin/bash
# slurm.sh: train a job on all tasks of a Slurm allocation.
#
#   slurm.sh JOB.yaml [OPTIONS OF srun]
#
# In a batch, on whose first node lhd runs, with a task a GPU (or a rank on a CPU):
#
#   sbatch --nodes 4 --ntasks-per-node 8 --gpus-per-node 8 --wrap \
#     'lhd & until lhctl info; do sleep 1; done; slurm.sh job.yaml; s=$?; lhctl stop; exit $s'
#
# Any --mpi of srun will do. Nodes need the programs, MPICH and the data; checkpoints are
# the first one's. LH_ADDRESS (the first address of this host) is where the ranks meet,
# LH_PORT (29400) the port. When a rank is lost srun is called again, as long as the job
# goes on. Exit status: lhctl's, so 0 trained to its end, 5 it failed or was cancelled; 2
# when a rank was refused, which another try would not mend: then the job is cancelled.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1
shift
address=${LH_ADDRESS:-$(hostname -I | awk '{ print $1 }')}:${LH_PORT:-29400}
job=$(lhctl submit "$file" --set "devices=$SLURM_NTASKS" --set "join=$address" |
	awk '{ print $2 }')
join=$(dirname "$(lhctl info | sed -n 's/^database: //p')")/jobs/$job/join
worker=lhworker-$(sed -n 's/.*"device": "\(.*\)".*/\1/p' "$join")

# The nodes share no disk, as far as this script knows.
copy=${TMPDIR:-/tmp}/lighthouse-join-$SLURM_JOB_ID-$job
sbcast --force --preserve "$join" "$copy"
status=4
while [ $status = 4 ]; do
	status=0
	srun --kill-on-bad-exit=1 "$@" "$worker" --join "$copy" || status=$?
	[ $status != 2 ] || { lhctl cancel "$job" -m "a rank was refused"; exit 2; }
	status=0
	lhctl wait "$job" --timeout 5 >/dev/null || status=$?
done
exit $status
