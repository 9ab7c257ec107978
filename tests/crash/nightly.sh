#!/usr/bin/env bash
# Crashes a real Redis under every ready policy for hours, and writes docs/crash-report.md. As root.
#
#   tests/crash/nightly.sh [CRASHES]      of each policy; 500 if not said
#
# Stopped, it goes on where it was when it is started again. POLICIES, SEED, FOLDER (the JSONs of
# the parts; target/crash), REPORT, and DURAC (one that is built; else a release is built) may be set.
# Exit code 1: a policy has lost too much.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

crashes=${1:-500}
seed=${SEED:-1}
folder=${FOLDER:-target/crash}
report=${REPORT:-docs/crash-report.md}
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

parts=()
for policy in "${policies[@]}"; do
    for ((first = 0; first < crashes; first += part)); do
        count=$((crashes - first < part ? crashes - first : part))
        # A part of another commit or seed is another part.
        json=$folder/${policy//[:\/=]/-}-$first-$count-$seed-${commit// /-}.json
        parts+=("$json")
        [ -e "$json" ] && continue
        say "$policy: crashes $first to $((first + count - 1)) of $crashes"
        code=0
        "$durac" crashtest "$policy" --first "$first" --trials "$count" --seed "$seed" \
            --crash clean,torn,kill --json "$json.new" >"$folder/last.txt" || code=$?
        # 1 is a violation: the report shows it.
        [ "$code" -le 1 ] || { cat "$folder/last.txt"; exit "$code"; }
        mv "$json.new" "$json"
    done
done

jq --slurp --raw-output --arg commit "$commit" --from-file tests/crash/report.jq "${parts[@]}" >"$report.new"
mv "$report.new" "$report"
say "$report"
jq --slurp --exit-status 'all(.[].policies[].trials[]; .violation == null)' "${parts[@]}" >/dev/null
