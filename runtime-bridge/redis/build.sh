#!/usr/bin/env bash
# Fetches the source of Redis or Valkey from Debian, applies durac's patch, and builds it:
#
#     bash runtime-bridge/redis/build.sh [redis|valkey] [FOLDER]
#
# Prints the path of the server. What is there already is not done again. Nothing outside FOLDER is
# changed: apt gets its sources and its lists from there. Default: target/redis or target/valkey.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=../../tests/setup.sh
. "$root/tests/setup.sh"

name=${1:-redis}
case $name in
    # What Debian 12 runs, with its security fixes.
    redis) suites='bookworm bookworm-updates' security=bookworm-security ;;
    # The current release.
    valkey) suites=sid security= ;;
    *)
        say "unknown: $name (redis or valkey)"
        exit 1
        ;;
esac
folder=${2:-$root/target/$name}
patch=$here/$name.patch
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
server=$folder/source/src/$name-server
stamp=$folder/built-with

# One build at a time in a folder; who comes second finds it done.
exec {lock}>"$folder/lock"
flock "$lock"

# Debian's patches are for its own jemalloc, not for the copy in the source.
install_missing \
    make:make cc:gcc /usr/include/stdlib.h:libc6-dev dpkg-source:dpkg-dev patch:patch \
    /usr/include/jemalloc/jemalloc.h:libjemalloc-dev

fetch() (
    apt=$folder/apt
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$apt"/{parts,lists/partial,cache/archives/partial,download}
    rm -rf "$apt"/download/*
    stanza() {
        printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
            "http://deb.debian.org/$1" "$2" "$keyring"
    }
    {
        stanza debian "$suites"
        [ -z "$security" ] || stanza debian-security "$security"
    } >"$apt/parts/durac.sources"
    options=(
        -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/parts"
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Acquire::Retries=2
    )
    # As root, apt would download as a user who may not write here.
    [ "$(id -u)" -ne 0 ] || options+=(-o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    cd "$apt/download"
    apt-get "${options[@]}" source --download-only "$name"
)

if [ ! -x "$server" ] || ! cmp -s "$patch" "$stamp"; then
    say "fetching $name"
    fetch >&2
    say "unpacking and patching $name"
    rm -rf "$folder/source" "$stamp"
    dpkg-source --no-check -x "$folder"/apt/download/*.dsc "$folder/source" >&2
    patch --directory="$folder/source" --strip=1 --forward <"$patch" >&2
    say "building $name"
    # Without debug information it is built sooner; the code is the same.
    make --directory="$folder/source" USE_SYSTEM_JEMALLOC=yes DEBUG= -j"$(nproc)" \
        </dev/null >"$folder/build.log" 2>&1 || {
        tail -n 30 "$folder/build.log" >&2
        exit 2
    }
    cp "$patch" "$stamp"
fi
echo "$server"
