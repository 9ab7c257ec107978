#!/usr/bin/env bash
# Compares `durac check` with the explorer of this folder on thousands of random policies, and runs as many with
# the real agent on a disk that delays syncs (docs/testing.md).
#
#   tests/oracle/nightly.sh [POLICIES] [RUNS]      5000 and 5000 if not said
#
# Stopped, it goes on where it was when it is started again. FIRST (the first seed), FOLDER (what each part has
# found; target/oracle) and BUILT (a folder with durac, its agent and durac-append-log; else a release is built) may
# be set. Exit code 1: a guarantee was accepted that a run breaks.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

policies=${1:-5000}
runs=${2:-5000}
first=${FIRST:-0}
folder=${FOLDER:-target/oracle}
built=${BUILT:-}
# Policies in one part: what is lost of the work when the script is stopped.
part=500

need_cargo
install_missing python3:python3 cc:gcc
commit=$(git rev-parse --short=12 HEAD)
git diff --quiet HEAD || commit="$commit-changed"
if [ -z "$built" ]; then
    say "building"
    cargo build --release --locked --workspace
    built=target/release
fi
mkdir -p "$folder"
cc -O2 -fPIC -shared -o "$folder/libinner.so" tests/shims/shim.c
cc -O2 -fPIC -shared -DOUTER -o "$folder/libouter.so" tests/shims/shim.c

result=0
# part_of NAME SEED COMMAND…: prints what it found, now or before; a part of another commit is another part.
part_of() {
    local name=$1 seed=$2 text=$folder/$1-$2-$commit.txt code=0
    shift 2
    if [ ! -e "$text" ]; then
        say "$name: from seed $seed"
        nice -n 19 "$@" >"$text.new" || code=$?
        # 1 is a finding: it is printed and kept.
        [ "$code" -le 1 ] || { cat "$text.new"; exit "$code"; }
        echo "exit code $code" >>"$text.new"
        mv "$text.new" "$text"
    fi
    cat "$text"
    tail -n 1 "$text" | grep -q '^exit code 0$' || result=1
}

for ((seed = first; seed < first + policies; seed += part)); do
    count=$((first + policies - seed < part ? first + policies - seed : part))
    part_of compare "$seed" python3 tests/oracle/compare.py --durac "$built/durac" --known --seconds 4 \
        --first "$seed" --count "$count"
done
for ((seed = 0; seed < runs; seed += part)); do
    # Policies without a bound are not counted: the parts lie far apart.
    part_of real "$((1000000 + first + 20 * seed))" python3 tests/oracle/real.py --built "$built" \
        --libraries "$folder" --first "$((1000000 + first + 20 * seed))" --count "$((runs - seed < part ? runs - seed : part))"
done
exit "$result"
