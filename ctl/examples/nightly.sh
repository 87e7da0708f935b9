#!/bin/bash
# nightly.sh: train at night, give the machine back in the morning, go on the next night.
#
#   nightly.sh JOB.yaml UNTIL [OPTIONS OF lhctl submit]
#
# UNTIL is a time as 08:00, or what else date(1) reads. From cron, each evening:
#
#   0 22 * * *  nightly.sh /data/job.yaml 08:00
#
# The first night submits the job, once, since the id of that request is made of the file;
# every other resumes it where it was. In the morning it is released: all is on disk, no
# process and no GPU memory stays. Exit status: 0 trained to its end, 4 to be continued,
# else lhctl's, so 5 if the job failed or was cancelled.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1 until=$2
shift 2
end=$(date -d "$until" +%s)
[ "$end" -gt "$(date +%s)" ] || end=$(date -d "$until tomorrow" +%s)

id=nightly-$(sha256sum "$file" | cut -c 1-16)
job=$(lhctl submit "$file" --request-id "$id" "$@" | awk '{ print $2 }')
# Refused (1) in the first night, when it was never paused.
lhctl resume "$job" --request-id "$id-on-$end" -m "the night begins" || [ $? = 1 ]

left=$((end - $(date +%s))) status=0
lhctl wait "$job" --timeout $((left > 0 ? left : 0)) || status=$?
if [ $status = 4 ]; then
	lhctl pause "$job" --release --request-id "$id-off-$end" -m "the night is over"
fi
exit $status
