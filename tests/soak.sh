#!/usr/bin/env bash
# What the short tests of tests/it/soak.rs do, for as long as one likes, with figures:
#
#     bash tests/soak.sh forks [N]        N snapshots and log rewrites under each policy (default: 3400)
#     bash tests/soak.sh memory [MINUTES] steady load under each policy (default: 60)
#     bash tests/soak.sh faults [ROUNDS]  faults of the disk at other moments each round (default: 20)
#
# DURAC_SOAK_POLICIES="window batch" chooses the policies of the first two.
# Exit code of the test: 0 if nothing hung, grew or was lost.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh
need_cargo
install_missing redis-server:redis-server redis-benchmark:redis-tools cc:gcc

case ${1:-} in
    forks)
        export DURAC_SOAK_FORKS=${2:-3400}
        which=soak::forks
        ;;
    memory)
        export DURAC_SOAK_SECONDS=$((${2:-60} * 60))
        which=soak::load
        ;;
    faults)
        export DURAC_FAULT_ROUNDS=${2:-20}
        which=disk_faults
        ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac

say "building"
cargo build --workspace --locked
export DURAC_TESTS_BUILT=1
exec cargo test --locked -p durac-tests --test it "$which" -- --nocapture </dev/null
