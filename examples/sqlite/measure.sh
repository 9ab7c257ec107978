#!/usr/bin/env bash
# Commits a second of SQLite at syncs of 1 ms: synced, under the policy, and with `synchronous = NORMAL`.
#   examples/sqlite/measure.sh [ROWS]         DURAC names the program (default: target/release/durac)
set -euo pipefail
cd "$(dirname "$0")/../.."
rows=${1:-2000}
durac=${DURAC:-target/release/durac}
folder=$(mktemp -d /dev/shm/durac-sqlite.XXXXXX)
trap 'rm -rf "$folder"' EXIT
cc -O2 -shared -fPIC -o "$folder/slow.so" tests/shims/slow_sync.c

# run PROCESSES COMMAND…: commits a second
run() {
    local processes=$1
    shift
    rm -f "$folder"/rows.db*
    CHECKPOINT=1000 "$@" python3 examples/sqlite/load.py time "$folder/rows.db" "$processes" $((rows / processes))
}
printf '%-26s %12s %12s\n' 'commits a second' '1 process' '4 processes'
row() {
    local name=$1
    shift
    printf '%-26s %12s %12s\n' "$name" "$(run 1 "$@")" "$(run 4 "$@")"
}
row 'synchronous = FULL' env LD_PRELOAD="$folder/slow.so"
for n in 4 16 64; do
    "$durac" compile --runtime supervisor --set "n=$n" examples/sqlite/sqlite.dur -o "$folder/$n.o" 2>/dev/null
    row "the policy, n = $n" env DURAC_LOG=quiet "$durac" run --preload-after "$folder/slow.so" "$folder/$n.o" --
done
row 'synchronous = NORMAL' env LD_PRELOAD="$folder/slow.so" SYNCHRONOUS=NORMAL
