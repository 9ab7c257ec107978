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
    make:make dpkg-source:dpkg-dev patch:patch tclsh:tcl \
    /usr/include/jemalloc/jemalloc.h:libjemalloc-dev \
    setpriv:util-linux mount:mount mkfs.ext4:e2fsprogs strace:strace chromium:chromium

# With the tests: without, their dependencies' features would have much of it built twice.
say "building"
cargo build --workspace --lib --bins --tests --locked

say "testing"
# The build above is what the tests run, so they need not look whether it is current.
export DURAC_TESTS_BUILT=1
# Many tests wait more than they compute: for a disk, a timer, a server.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
if [ "$#" -eq 0 ]; then
    set -- --workspace --no-fail-fast
fi
exec cargo test --locked "$@" </dev/null
