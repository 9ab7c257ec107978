#!/usr/bin/env bash
# Fuzzes targets one after the other: `bash tests/fuzz/run.sh SECONDS [TARGET…]`, 900 s for each of all
# targets without arguments. Needs cargo-fuzz (`cargo install cargo-fuzz`), and no nightly compiler:
# the instrumentation is asked of the stable one. An input that fails is left in
# target/fuzz/artifacts/TARGET; once mended, it belongs into tests/fuzz/regressions/TARGET.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)
seconds=${1:-900}
shift || true
export RUSTC_BOOTSTRAP=1
work=$root/target/fuzz
[ "$#" -gt 0 ] || set -- parse format compile words elf code note trace strace replay ring page environment

failed=0
for target in "$@"; do
    corpus=$work/corpus/$target
    mkdir -p "$corpus" "$work/artifacts/$target"
    cargo run --quiet --locked --manifest-path "$root/Cargo.toml" -p durac-fuzz-bodies --bin durac-fuzz-seeds -- \
        "$target" "$corpus" "$work/$target.dict"
    options=(-max_total_time="$seconds" -max_len=65536 -timeout=25 -rss_limit_mb=2048
        -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1)
    [ ! -s "$work/$target.dict" ] || options+=(-dict="$work/$target.dict")
    echo "### $target"
    CARGO_TARGET_DIR=$work cargo fuzz run --sanitizer none "$target" "$corpus" -- "${options[@]}" || failed=1
done
exit "$failed"
