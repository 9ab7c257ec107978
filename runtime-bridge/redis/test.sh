#!/usr/bin/env bash
# Runs the database's own tests on the patched build, which nothing hooks:
#
#     bash runtime-bridge/redis/test.sh [redis|valkey] [--aof] [FOLDER]
#
# All of them, or with --aof those of the append-only file: what CI runs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../tests/setup.sh
. "$here/../../tests/setup.sh"

name=redis folder=() which=()
for argument in "$@"; do
    case $argument in
        redis | valkey) name=$argument ;;
        --aof) which=(--single unit/aofrw --single integration/aof --single integration/aof-multi-part) ;;
        *) folder=("$argument") ;;
    esac
done

install_missing tclsh:tcl
server=$(bash "$here/build.sh" "$name" "${folder[@]}")
cd "$(dirname "$server")/.."
exec ./runtest --clients 2 "${which[@]}" </dev/null
