#!/usr/bin/env bash
# Puts a second of goleveldb at syncs of 1 ms: every sync made, under the policy, and without syncs; or its crash tests, as root.
#   examples/goleveldb/measure.sh [PUTS]             DURAC names the program (default: target/release/durac)
#   examples/goleveldb/measure.sh crash [CUTS]       so many cuts (default: 300)
# It needs Debian's golang-go and golang-github-syndtr-goleveldb-dev.
set -euo pipefail
cd "$(dirname "$0")/../.."
durac=${DURAC:-target/release/durac}
folder=$(mktemp -d /dev/shm/durac-goleveldb.XXXXXX)
trap 'rm -rf "$folder"' EXIT
load=$folder/load
# The packages are a GOPATH. Static, as programs in Go mostly are.
GO111MODULE=off GOPATH=/usr/share/gocode CGO_ENABLED=0 GOCACHE=$folder/cache \
    go build -o "$load" examples/goleveldb/load.go
rm -rf "$folder/cache"
printf 'policy passes\ntarget leveldb.log\non fsync: pass\n' >"$folder/pass.dur"

# cuts TITLE POLICY GOROUTINES [OPTION…]
cuts() {
    local title=$1 policy=$2 threads=$3
    shift 3
    printf '\n%s\n' "$title"
    "$durac" crashtest "$policy" --crash clean,torn --latency 1000 --per-sync "$threads" "$@" \
        --check "$load read {dir}/db" -- "$load" write '{dir}/db' "$threads" 100000
}
if [ "${1:-}" = crash ]; then
    many=${2:-300}
    few=$(((many + 2) / 3))
    cuts 'n = 16, 1 goroutine' examples/goleveldb/goleveldb.dur:n=16 1 --trials "$many"
    cuts 'n = 16, 4 goroutines' examples/goleveldb/goleveldb.dur:n=16 4 --trials "$many"
    cuts 'pass, 4 goroutines' "$folder/pass.dur" 4 --trials "$few"
    # A claim that is too low must be found.
    if cuts 'n = 16, 1 goroutine, and a claim of 8' examples/goleveldb/goleveldb.dur:n=16 1 --trials "$few" --claim 8; then
        echo 'the claim of 8 was not refuted' >&2
        exit 1
    fi
    exit
fi
puts=${1:-4000}
many=$((10 * puts))
cc -O2 -shared -fPIC -o "$folder/slow.so" tests/shims/slow_sync.c
# run GOROUTINES PUTS COMMAND…: puts a second
run() {
    local threads=$1 each=$(($2 / $1))
    shift 2
    rm -rf "$folder/db"
    "$@" "$load" time "$folder/db" "$threads" "$each"
}
printf '%-26s %12s %12s\n' 'puts a second' '1 goroutine' '4 goroutines'
# row TITLE PUTS COMMAND…
row() {
    local title=$1 puts=$2
    shift 2
    printf '%-26s %12s %12s\n' "$title" "$(run 1 "$puts" "$@")" "$(run 4 "$puts" "$@")"
}
# The syncs of a static program can only be slowed down where the supervisor makes them.
under=(env DURAC_LOG=quiet "$durac" run --engine supervisor --preload-after "$folder/slow.so")
row 'pass' "$puts" "${under[@]}" "$folder/pass.dur" --
for n in 4 16 64; do
    row "n = $n" "$many" "${under[@]}" --set "n=$n" examples/goleveldb/goleveldb.dur --
done
row 'without syncs' "$many" env SYNC=0
