#!/usr/bin/env bash
# One shard of a crash test. Which one, from 0, says the scheduler: Slurm's job array, an indexed Job of
# Kubernetes, or the first argument (GNU parallel).
#
#     SHARDS=16 POLICIES="window:n=4 batch" TRIALS=2000 REPORTS=/shared/reports bash crashtest.sh [INDEX]
#
# Needs root and /dev/fuse. Afterwards: durac merge "$REPORTS"/part-*.json -o whole.json
set -euo pipefail

index=${SLURM_ARRAY_TASK_ID:-${JOB_COMPLETION_INDEX:-${1:?no index: give it as an argument}}}
shards=${SHARDS:?the number of shards}
reports=${REPORTS:-reports}
mkdir -p "$reports"
read -ra policies <<<"${POLICIES:-window delayed_fsync batch}"
part=$(printf 'part-%04d.json' "$index")
# 1: a crash exceeded its bound. Its report counts, so only a failure of the tool is one of the job.
status=0
"${DURAC:-durac}" crashtest "${policies[@]}" --trials "${TRIALS:-480}" --seed "${SEED:-1}" \
    --app "${APP:-redis}" --shard "$((index + 1))/$shards" --json "$reports/$part.tmp" || status=$?
[ -s "$reports/$part.tmp" ] && mv "$reports/$part.tmp" "$reports/$part"
[ "$status" -le 1 ]
