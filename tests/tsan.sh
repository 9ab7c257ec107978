#!/usr/bin/env bash
# ThreadSanitizer over what threads and processes share without a lock: the ring of a recording and the
# status page. The stable compiler is asked for the instrumentation; its standard library comes without,
# so that races which are only in there (the test harness's channel) are suppressed. The agent is
# preloaded into programs that have no such runtime, and its locks are loom's to explore instead
# (runtime-bridge/agent/tests/explore).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh
need_cargo

suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
printf 'race:%s\n' test::run_test test::run_tests std::sync::mpmc std::sync::mpsc >"$suppressions"
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/tsan
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="suppressions=$suppressions halt_on_error=0"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo test --locked --target "$host" -p durac-shm --test ring
cargo test --locked --target "$host" -p durac-shm --test status
