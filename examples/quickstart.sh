#!/usr/bin/env bash
# Installs what is missing, builds durac, checks and compiles a policy, and compares Redis'
# throughput under it with Redis' own modes. Nothing outside the build folder is changed, except
# for the packages; no Redis but its own is touched.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

need_cargo
install_missing cc:gcc /usr/include/stdlib.h:libc6-dev

# Redis is needed only after the build, which takes longer than its installation.
install_missing redis-server:redis-server redis-benchmark:redis-tools &
redis=$!
say "building (release)"
built=0
# Without FUSE, which only crash tests and the slow disk need.
cargo build --release --locked --no-default-features -p durac-cli -p durac-preload -p durac-workload </dev/null || built=$?
workload=redis
if ! wait "$redis"; then
    say "no Redis here: measuring the built-in append-log workload instead"
    workload=append-log
fi
if [ "$built" -ne 0 ]; then
    say "the build failed"
    exit "$built"
fi
bin=${CARGO_TARGET_DIR:-target}/release
durac=$bin/durac

say "the policy"
"$durac" list --show delayed_fsync

say "durac check delayed_fsync"
"$durac" check delayed_fsync

object=$bin/delayed_fsync.o
say "durac compile delayed_fsync -o $object"
"$durac" compile delayed_fsync -o "$object"

json=$bin/quickstart.json
if [ "$workload" = redis ]; then
    load=(--clients 5 --requests 20000)
else
    load=(--clients 1 --requests 10000)
fi
bench=("$durac" bench delayed_fsync window "${load[@]}" --rounds 3 --workload "$workload" --json "$json")
say "${bench[*]}"
"${bench[@]}" </dev/null

say "done; the figures are in $json, and README.md says how to run your own Redis under a policy"
