#!/usr/bin/env bash
# Crashes a real Redis under every ready policy for hours, and writes a report (REPORT, target/crash/report.md). Then it crashes a
# server that works at the agent's edges (tests/shims/edges.c), and prints what that lost. As root.
#
#   tests/crash/nightly.sh [CRASHES] [EDGES] [HELD]      of each policy; 500, 200 and 1000 if not said
#
# HELD crashes are under held replies, with clients that remember what they read: half on a slow disk, half on a quick one, where the
# event loop syncs. Before them the tests of held replies run with a million requests each.
#
# Stopped, it goes on where it was when it is started again. POLICIES, SEED, FOLDER (the JSONs of
# the parts; target/crash), REPORT, and DURAC (one that is built; else a release is built) may be set.
# Exit code 1: a policy has lost too much.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

crashes=${1:-500}
edges=${2:-200}
held=${3:-1000}
seed=${SEED:-1}
folder=${FOLDER:-target/crash}
report=${REPORT:-$folder/report.md}
read -ra policies <<<"${POLICIES:-always everysec delayed_fsync fast_notify batch window:n=4 window:n=64}"
# Crashes in one part: what is lost of the work when the script is stopped.
part=50

need_cargo
install_missing redis-server:redis-server jq:jq
[ "$(id -u)" -eq 0 ] || { say "only root can mount a disk"; exit 2; }
commit=$(git rev-parse --short=12 HEAD)
git diff --quiet HEAD -- . ":!$report" || commit="$commit with changes"
durac=${DURAC:-}
if [ -z "$durac" ]; then
    say "building"
    cargo build --release --locked --workspace
    durac=target/release/durac
fi
mkdir -p "$folder"

# campaign NAME CRASHES [OPTION…] [-- COMMAND…]: adds its JSONs to `parts`.
campaign() {
    local name=$1 total=$2 policy first count json code
    shift 2
    for policy in "${policies[@]}"; do
        for ((first = 0; first < total; first += part)); do
            count=$((total - first < part ? total - first : part))
            # A part of another commit or seed is another part.
            json=$folder/$name${policy//[:\/=]/-}-$first-$count-$seed-${commit// /-}.json
            parts+=("$json")
            [ -e "$json" ] && continue
            say "$name$policy: crashes $first to $((first + count - 1)) of $total"
            code=0
            "$durac" crashtest "$policy" --first "$first" --trials "$count" --seed "$seed" \
                --crash clean,torn,kill --json "$json.new" "$@" >"$folder/last.txt" || code=$?
            # 1 is a violation: the report shows it.
            [ "$code" -le 1 ] || { cat "$folder/last.txt"; exit "$code"; }
            mv "$json.new" "$json"
        done
    done
}

# None of these crashes has lost too much.
kept() {
    jq --slurp --exit-status 'all(.[].policies[].trials[]; .violation == null)' "$@" >/dev/null
}

result=0
if [ "$edges" -gt 0 ]; then
    parts=()
    cc -O2 -Wall -Wextra -o "$folder/edges" tests/shims/edges.c
    say "crashes across changes of the policy in the running server"
    DURAC_TESTS_LONG=$edges cargo test --locked -p durac-tests --test it control::power_cuts_across_the_change || result=1
    campaign edges- "$edges" --at random,mid-sync,after-ack \
        -- "$(realpath "$folder/edges")" pdfsjrotb "{dir}" "{port}"
    jq --slurp --raw-output '[.[].policies[]] | group_by(.policy)[] |
        "at the edges: \(.[0].policy): \([.[].trials[]] | length) crashes, most lost \([.[].trials[].lost_syncs] | max) syncs, proved \(.[0].power_loss // "any number"), violations \([.[].trials[] | select(.violation)] | length)"' \
        "${parts[@]}"
    kept "${parts[@]}" || result=1
fi
if [ "$held" -gt 0 ]; then
    say "held replies"
    DURAC_REPLIES=1000000 cargo test --locked -p durac-tests --test agent replies:: || result=1
    all=("${policies[@]}")
    policies=(external_synchrony clean_reads)
    parts=()
    campaign held-slow- "$((held / 2))"
    campaign held-quick- "$((held / 2))" --latency 0
    policies=("${all[@]}")
    say "held replies: $held crashes"
    kept "${parts[@]}" || result=1
fi
[ "$crashes" -gt 0 ] || exit "$result"

parts=()
campaign "" "$crashes"
jq --slurp --raw-output --arg commit "$commit" --from-file tests/crash/report.jq "${parts[@]}" >"$report.new"
mv "$report.new" "$report"
say "$report"
kept "${parts[@]}" || result=1
exit "$result"
