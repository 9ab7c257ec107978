#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test of the workspace. Arguments go to
# `cargo test`: `bash tests/run.sh -p durac-tests window`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

need_cargo
install_missing \
    redis-server:redis-server redis-benchmark:redis-tools \
    cc:gcc /usr/include/stdlib.h:libc6-dev readelf:binutils \
    clang:clang llvm-objdump:llvm bpftool:bpftool /usr/include/bpf/libbpf.h:libbpf-dev \
    /usr/include/leveldb/c.h:libleveldb-dev /usr/include/rocksdb/c.h:librocksdb-dev sst_dump:rocksdb-tools influxd:influxdb \
    /usr/lib/x86_64-linux-musl/musl-gcc.specs:musl-tools \
    make:make dpkg-source:dpkg-dev patch:patch tclsh:tcl \
    /usr/include/jemalloc/jemalloc.h:libjemalloc-dev \
    setpriv:util-linux ip:iproute2 /lib/systemd/systemd:systemd mount:mount mkfs.ext4:e2fsprogs strace:strace runc:runc chromium:chromium \
    shellcheck:shellcheck lintian:lintian z3:z3 python3:python3 /usr/lib/python3/dist-packages/prometheus_client:python3-prometheus-client

# The patched Redis, whose source has to be fetched, is built beside the rest. A test that needs it sooner waits; if
# it cannot be built, that test says why.
if [ "$#" -eq 0 ]; then
    nice bash runtime-bridge/redis/build.sh redis "${CARGO_TARGET_DIR:-target}/redis" </dev/null >/dev/null 2>&1 &
fi

# With the tests: without, their dependencies' features would have much of it built twice.
say "building"
cargo build --workspace --lib --bins --tests --locked

say "testing"
# The build above is what the tests run, so they need not look whether it is current.
export DURAC_TESTS_BUILT=1
# Many tests wait more than they compute: for a disk, a timer, a server.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((4 * $(nproc)))}
if [ "$#" -gt 0 ]; then
    exec cargo test --locked "$@" </dev/null
fi

# The tests with real servers, and those of the supervisor, wait more than they compute, the others compute: side by
# side, all are done sooner. The patterns leave out no test whose name has three letters.
all() {
    cargo test --locked --workspace --no-fail-fast "$@" </dev/null
}
# What the others are made of. Cargo builds the preloaded libraries again for it: before the tests, which preload them.
others_are=(--lib --bins --test '[!ais]*' --test 's[!u]*' --test 'su[!p]*')
others() {
    local status=0
    # The agent's tests wait for threads of their own: they come first, at full priority.
    all --test 'a*' || status=$?
    renice -n 10 -p "$BASHPID" >/dev/null
    all "${others_are[@]}" || status=$?
    all --doc || status=$?
    return "$status"
}
all --no-run --quiet "${others_are[@]}"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
others >"$logs/others" 2>&1 &
side=("$!")
all --test 'sup*' >"$logs/supervisor" 2>&1 &
side+=("$!")
status=0
all --test 'i*' || status=$?
for pid in "${side[@]}"; do
    wait "$pid" || status=$?
done
cat "$logs/supervisor" "$logs/others"
exit "$status"
