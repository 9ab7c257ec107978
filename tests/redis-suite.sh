#!/usr/bin/env bash
# Redis' own tests without durac and under policies, compared test by test:
#
#     bash tests/redis-suite.sh [OPTION…] [POLICY…] [-- UNIT…]
#
#     --clients N         test clients of the suite at once (default: two for each core)
#     --appendfsync MODE  what the servers are configured with in every run (default: always)
#     --repeat N          run everything N times without durac first: what is not the same in all of
#                         these is the suite's own, and listed as such (default: 1)
#     --alone             not without durac: every test has to pass under the policies
#     --baseport N        servers use the numbers from here on, and those 10000 above (default: by chance)
#     --keep              keep what the servers wrote, and say where
#
# A policy is a file or the name of a ready one, with `:name=value` to set parameters. The default is
# `always delayed_fsync window:n=64`, with the units below. The source is Debian's, fetched and built by
# runtime-bridge/redis/build.sh; durac is built, unless DURAC names it. Prints a table. Exit 1 if a test
# ends otherwise under a policy than without, 2 if the tests could not be run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/setup.sh
. "$root/tests/setup.sh"

units=(
    unit/aofrw unit/other unit/expire unit/scripting unit/multi unit/shutdown
    integration/aof integration/aof-multi-part integration/aof-race integration/shutdown
    integration/replication integration/replication-2 integration/replication-3
    integration/replication-4 integration/replication-psync integration/replication-buffer
)
# Of the tests of modules, those that write, fork or persist.
modules=(basics fork testrdb propagate hooks misc datatype datatype2 eventloop usercall)
for module in "${modules[@]}"; do
    units+=("unit/moduleapi/$module")
done

fail() {
    say "$*"
    exit 2
}

clients=$((2 * $(nproc))) appendfsync=always repeat=1 alone='' keep='' baseport='' policies=()
while [ "$#" -gt 0 ]; do
    case $1 in
        --clients | --appendfsync | --repeat | --baseport)
            [ "$#" -gt 1 ] || fail "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        --alone) alone=yes ;;
        --keep) keep=yes ;;
        --)
            shift
            [ "$#" -eq 0 ] || units=("$@")
            break
            ;;
        -*) fail "unknown: $1" ;;
        *) policies+=("$1") ;;
    esac
    shift
done
[ "${#policies[@]}" -gt 0 ] || policies=(always delayed_fsync window:n=64)

install_missing tclsh:tcl
folder=${DURAC_REDIS:-$root/target/redis}
server=$(bash "$root/runtime-bridge/redis/build.sh" redis "$folder")
source=$(cd "$(dirname "$server")/.." && pwd)
if [[ " ${units[*]} " == *" unit/moduleapi/"* ]]; then
    say "building the modules of the tests"
    make --directory="$source/tests/modules" -j"$(nproc)" >"$folder/modules.log" 2>&1 ||
        fail "the modules cannot be built: $folder/modules.log"
fi
durac=${DURAC:-}
if [ -z "$durac" ]; then
    need_cargo
    say "building durac"
    cargo build --manifest-path "$root/Cargo.toml" --workspace --locked >&2
    durac=${CARGO_TARGET_DIR:-$root/target}/debug/durac
fi
agent=$(dirname "$durac")/libdurac_preload.so
[ -e "$agent" ] || fail "no agent beside $durac"

# Another suite may run beside this one.
base=${baseport:-$((11111 + RANDOM % 9 * 1000))}

work=$(mktemp -d "${TMPDIR:-/tmp}/durac-suite-XXXXXX")
clean() {
    if [ -n "$keep" ]; then say "kept: $work"; else rm -rf "$work"; fi
}
trap clean EXIT

# A tree in which the suite runs: its tests copied, since they write there, and the programs linked.
tree() {
    mkdir -p "$1/src"
    cp -R "$source/tests" "$source/utils" "$source/runtest" "$1/"
    rm -rf "$1/tests/tmp"
    mkdir "$1/tests/tmp"
    ln -s "$source"/src/* "$1/src/"
    # This file starts a server on the log of another. Since the suite's `start_server` empties the folder
    # unless it is told not to, the file fails in Redis 7.0 as it is, and is not in the suite's own list.
    sed -i 's/start_server \[list overrides $config\]/start_server [list overrides $config keep_persistence true]/' \
        "$1/tests/integration/aof-race.tcl"
}

# The server of a tree under an object, as `durac run` starts it: the same process, the library
# preloaded. The policy is compiled once and not at each of some hundred starts.
hook() {
    local tree=$1 object=$2
    rm "$tree/src/redis-server"
    cat >"$tree/src/redis-server" <<END
#!/bin/sh
export DURAC_OBJECT='$object' LD_PRELOAD='$agent'
exec '$server' "\$@"
END
    chmod +x "$tree/src/redis-server"
}

# Runs the suite in a tree; its results go to <tree>/results as sorted lines `status name`.
suite() {
    local tree=$1 arguments=() unit
    for unit in "${units[@]}"; do arguments+=(--single "$unit"); done
    (
        cd "$tree"
        # It ends with 1 if a test fails: what failed is compared below.
        TERM=dumb ./runtest --clients "$clients" --durable --dont-clean \
            --baseport "$base" --portcount 900 --config appendfsync "$appendfsync" "${arguments[@]}" </dev/null >log 2>&1 || true
    )
    # `[ok]: name (12 ms)`, `[err]: name in tests/unit/x.tcl`, `[skip]: name`, `[ignore]: name: why`. One
    # unit is a single test without a name: `[3/9 done]: unit (2 seconds)`.
    sed -n -E \
        -e 's/\x1b\[[0-9;]*m//g' \
        -e 's/^\[ok\]: (.*) \([0-9]+ ms\)$/ok \1/p' \
        -e 's/^\[[0-9]+\/[0-9]+ done\]: (integration\/aof-race) .*$/ok \1/p' \
        -e 's/^\[(err|exception|TIMEOUT)\]: ?(.*)$/err \2/p' \
        -e 's/^\[(skip|ignore)\]: (.*)$/skip \2/p' "$tree/log" |
        sed -E '/^err /s/ in tests\/[^ ]*$//' >"$tree/results"
    [ -s "$tree/results" ] || fail "the suite ran no test: $(tail -n 20 "$tree/log")"
    # An error outside of a test ends it.
    grep -q 'The End' "$tree/log" || echo 'err the suite came to its end' >>"$tree/results"
    sort -o "$tree/results" "$tree/results"
}

count() { grep -c "^$2 " "$1/results" || true; }

row() { printf '%-24s %7s %7s %7s %9s %10s %8s\n' "$@"; }

flaky=$work/flaky
if [ -z "$alone" ]; then
    say "without durac: ${units[*]}"
    tree "$work/without"
    started=$SECONDS
    suite "$work/without"
    took=$((SECONDS - started))
else
    repeat=0
    mkdir "$work/without"
    : >"$work/without/results"
fi
: >"$flaky"
for ((run = 2; run <= repeat; run++)); do
    say "without durac, run $run"
    tree "$work/without-$run"
    suite "$work/without-$run"
    comm -3 "$work/without/results" "$work/without-$run/results" |
        sed -E 's/^\t?[a-z]+ //' | sort -u >>"$flaky"
done
sort -u -o "$flaky" "$flaky"

declare -A servers differ times
result=0
for policy in "${policies[@]}"; do
    say "under $policy"
    name=${policy%%:*} sets=()
    if [ "$name" != "$policy" ]; then
        IFS=, read -r -a values <<<"${policy#*:}"
        for value in "${values[@]}"; do sets+=(--set "$value"); done
    fi
    place=$work/$(tr -c 'a-zA-Z0-9\n' - <<<"$policy")
    object=$place.o
    "$durac" compile "$name" "${sets[@]}" -o "$object" >&2 || exit 2
    chmod go-w "$object"
    tree "$place"
    hook "$place" "$object"
    started=$SECONDS
    suite "$place"
    times[$policy]=$((SECONDS - started))
    # Each server says so on its stderr.
    says() { find "$place/tests/tmp" -name 'stderr*' -exec cat {} + | grep -c "$1" || true; }
    servers[$policy]=$(says '^durac: policy')
    [ "${servers[$policy]}" -gt 0 ] || fail "$policy was in force in no server"
    [ "$(says '^durac: .*without a policy')" = 0 ] || fail "$policy was refused by a server"
    if [ -z "$alone" ]; then
        comm -3 "$work/without/results" "$place/results" >"$place/differ"
    else
        grep '^err ' "$place/results" >"$place/differ" || true
    fi
    # What differs between runs without durac says nothing.
    awk -v flaky="$flaky" '
        BEGIN { while ((getline name < flaky) > 0) known[name] }
        { name = $0; sub(/^\t?[a-z]+ /, "", name) }
        !(name in known)' "$place/differ" >"$place/ours"
    differ[$policy]=$(sed -E 's/^\t?[a-z]+ //' "$place/ours" | sort -u | wc -l)
    [ "${differ[$policy]}" = 0 ] || result=1
done

row policy ok failed skipped differing servers seconds
[ -n "$alone" ] || row "without durac" "$(count "$work/without" ok)" "$(count "$work/without" err)" \
    "$(count "$work/without" skip)" - - "$took"
for policy in "${policies[@]}"; do
    place=$work/$(tr -c 'a-zA-Z0-9\n' - <<<"$policy")
    row "$policy" "$(count "$place" ok)" "$(count "$place" err)" "$(count "$place" skip)" \
        "${differ[$policy]}" "${servers[$policy]}" "${times[$policy]}"
done
for policy in "${policies[@]}"; do
    place=$work/$(tr -c 'a-zA-Z0-9\n' - <<<"$policy")
    [ ! -s "$place/ours" ] || {
        printf '\n%s: without durac on the left, under the policy on the right\n' "$policy"
        cat "$place/ours"
        grep -A 12 '^\[\(err\|exception\|TIMEOUT\)\]' "$place/log" || true
    } >&2
done
if grep -q '^err ' "$work/without/results"; then
    printf '\nfailed without durac:\n' >&2
    sed -n 's/^err /    /p' "$work/without/results" >&2
fi
if [ -s "$flaky" ]; then
    printf '\nnot the same in every run without durac:\n' >&2
    sed 's/^/    /' "$flaky" >&2
fi
exit "$result"
