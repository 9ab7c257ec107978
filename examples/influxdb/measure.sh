#!/usr/bin/env bash
# Points a second of InfluxDB at syncs of 1 ms: every sync made, with `wal-fsync-delay`, under the policy (also where the clients
# write to two shards), and with syncs that cost nothing; or its crash tests, as root.
#   examples/influxdb/measure.sh [SECONDS]           DURAC names the program (default: target/release/durac)
#   examples/influxdb/measure.sh crash [CUTS]        so many cuts with one client and with four (default: 150)
# It needs Debian's influxdb.
set -euo pipefail
cd "$(dirname "$0")/../.."
durac=${DURAC:-target/release/durac}
load=examples/influxdb/load.py
policy=examples/influxdb/influxdb.dur
folder=$(mktemp -d /dev/shm/durac-influxdb.XXXXXX)
trap 'rm -rf "$folder"' EXIT

# cuts TITLE POLICY CLIENTS [OPTION…]
cuts() {
    local title=$1 policy=$2 clients=$3
    shift 3
    printf '\n%s\n' "$title"
    "$durac" crashtest "$policy" --crash clean,torn --latency 1000 --per-sync "$clients" "$@" \
        --check "python3 $load read {dir}" -- python3 "$load" write '{dir}' "$clients" 100000
}
printf 'policy passes\ntarget influxdb.wal\non fsync: pass\n' >"$folder/pass.dur"
if [ "${1:-}" = crash ]; then
    many=${2:-150}
    few=$(((many + 2) / 3))
    cuts 'n = 16, 1 client' "$policy:n=16" 1 --trials "$many"
    cuts 'n = 16, 4 clients' "$policy:n=16" 4 --trials "$many"
    cuts 'pass, 4 clients' "$folder/pass.dur" 4 --trials "$few"
    # A claim that is too low must be found.
    if cuts 'n = 16, 1 client, and a claim of 8' "$policy:n=16" 1 --trials "$few" --claim 8; then
        echo 'the claim of 8 was not refuted' >&2
        exit 1
    fi
    exit
fi
seconds=${1:-3}
cc -O2 -shared -fPIC -o "$folder/slow.so" tests/shims/slow_sync.c
# Writes are not asked about where nothing is deferred: InfluxDB itself, with slow syncs.
{
    printf 'policy passes\ntarget own.wal\non fsync: pass\n'
    sed -e '/^\/\/\/ *InfluxDB opens it/d' -e '/protects/d' -e 's/influxdb\.wal/own.wal/' stdlib/targets/influxdb.dur
} >"$folder/plain.dur"
# row TITLE SERVER…: the command that becomes influxd
row() {
    local title=$1 clients
    shift
    printf '%-30s' "$title"
    for clients in 1 4 16; do
        rm -rf "$folder/db"
        mkdir "$folder/db"
        printf ' %11s' "$(INFLUXD="$*" SNAPSHOT=26214400 python3 "$load" time "$folder/db" "$clients" "$seconds")"
    done
    echo
}
printf '%-30s %11s %11s %11s\n' 'points a second' '1 client' '4 clients' '16 clients'
# The syncs of a program in Go can only be slowed down where the supervisor makes them.
under="env DURAC_LOG=quiet $durac run --engine supervisor --preload-after $folder/slow.so"
for delay in 0s 1ms 10ms 100ms; do
    FSYNC_DELAY=$delay row "wal-fsync-delay = $delay" "$under $folder/plain.dur -- influxd"
done
for n in 4 16 64; do
    "$durac" compile --runtime supervisor --set "n=$n" "$policy" -o "$folder/$n.o" 2>/dev/null
    row "n = $n" "$under $folder/$n.o -- influxd"
done
SHARDS=2 row 'n = 64, two shards' "$under $folder/64.o -- influxd"
row 'syncs that cost nothing' influxd
