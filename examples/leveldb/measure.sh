#!/usr/bin/env bash
# Writes a second of LevelDB or RocksDB at syncs of 1 ms: synced, under the policy, and with `sync = false`.
#   examples/leveldb/measure.sh leveldb|rocksdb [WRITES]     DURAC names the program (default: target/release/durac)
# So many writes are synced; ten times as many are made where they are not.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:-leveldb}
writes=${2:-4000}
many=$((10 * writes))
durac=${DURAC:-target/release/durac}
folder=$(mktemp -d /dev/shm/durac-leveldb.XXXXXX)
trap 'rm -rf "$folder"' EXIT
define=()
if [ "$name" = rocksdb ]; then define=(-DROCKSDB); fi
cc -O2 -shared -fPIC -o "$folder/slow.so" tests/shims/slow_sync.c
cc -O2 "${define[@]}" -o "$folder/load" examples/leveldb/load.c "-l$name" -lpthread

# run THREADS WRITES COMMAND…: writes a second
run() {
    local threads=$1 each=$(($2 / $1))
    shift 2
    rm -rf "$folder/db"
    "$@" "$folder/load" time "$folder/db" "$threads" "$each"
}
printf '%-26s %12s %12s\n' 'writes a second' '1 thread' '4 threads'
# row TITLE WRITES COMMAND…
row() {
    local title=$1 writes=$2
    shift 2
    printf '%-26s %12s %12s\n' "$title" "$(run 1 "$writes" "$@")" "$(run 4 "$writes" "$@")"
}
row 'sync = true' "$writes" env LD_PRELOAD="$folder/slow.so"
for engine in thread supervisor; do
    for n in 4 16 64; do
        row "n = $n, engine $engine" "$many" env DURAC_LOG=quiet "$durac" run --engine "$engine" --set "n=$n" \
            --preload-after "$folder/slow.so" "examples/$name/$name.dur" --
    done
done
row 'sync = false' "$many" env LD_PRELOAD="$folder/slow.so" SYNC=0
