#!/usr/bin/env bash
# Makes a Debian package of durac, and checks it: `package.sh [FOLDER]` writes durac_VERSION_ARCH.deb there.
#
# It contains what `durac install` writes, so there is one list of files. Nothing runs when it is installed, no service
# is changed: `durac enable` does that, and `durac disable` takes it back. PACKAGE_PROFILE=debug packages a debug build.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
profile=${PACKAGE_PROFILE:-release}
out=${1:-${CARGO_TARGET_DIR:-target}/debian}
bin=${CARGO_TARGET_DIR:-target}/$profile
if [ "${DURAC_TESTS_BUILT:-}" != 1 ]; then
    flags=()
    [ "$profile" = release ] && flags=(--release)
    cargo build "${flags[@]}" --locked -p durac-cli -p durac-lsp -p durac-preload -p durac-disk-sync -p durac-workload </dev/null
fi

version=$("$bin/durac" --version | cut -d' ' -f2)
arch=$(dpkg --print-architecture)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
umask 022

"$bin/durac" install --root "$tree" --prefix /usr >/dev/null
strip --strip-unneeded --remove-section=.comment "$tree"/usr/bin/durac "$tree"/usr/lib/durac/*
gzip -9n "$tree"/usr/share/man/man1/*.1
doc=$tree/usr/share/doc/durac
mkdir -p "$doc"
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: durac\n\n'
    printf 'Files: *\nCopyright: %s\nLicense: Expat\n' "$(sed -n 's/^Copyright (c) //p' LICENSE | head -1)"
    sed -e '1,/^Copyright/d' -e 's/^$/./' -e 's/^/ /' LICENSE | sed '1{/^ \.$/d}'
} >"$doc/copyright"
printf 'durac (%s) unstable; urgency=medium\n\n  * See /usr/share/doc/durac/NEWS.gz.\n\n -- durac maintainers <durac@example.org>  %s\n' \
    "$version" "$(LC_ALL=C date -R -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}")" |
    gzip -9n >"$doc/changelog.gz"
gzip -9nc CHANGELOG.md >"$doc/NEWS.gz"
mkdir -p "$tree/usr/share/lintian/overrides"
cat >"$tree/usr/share/lintian/overrides/durac" <<'OVERRIDES'
# A Rust library without a C interface of its own: it is preloaded by its path, and nothing links it.
durac: hardening-no-fortify-functions *
# A list of defaults that cannot be broken into lines.
durac: groff-message *cannot adjust line* *
# Not a package of Debian: no bug asks for it.
durac: initial-upload-closes-no-bugs *
OVERRIDES
mkdir -p "$tree/DEBIAN"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: durac
Version: $version
Architecture: $arch
Maintainer: durac maintainers <durac@example.org>
Section: database
Priority: optional
Installed-Size: $(du -ks --exclude=DEBIAN "$tree" | cut -f1)
Depends: libc6 (>= 2.34), libgcc-s1
Suggests: redis-server
Description: durability policies for databases, proved and enforced
 A policy says what happens when a database calls write, fsync or fdatasync on
 its log. durac compiles it to verified eBPF, proves how much a crash can lose,
 and runs it inside an unmodified Redis through a preloaded library.
 .
 Installing the package changes no service: durac enable does.
CONTROL
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

mkdir -p "$out"
deb=$out/durac_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$tree" "$deb" >/dev/null

# What was packaged works from where it is unpacked.
unpacked=$(mktemp -d)
trap 'rm -rf "$tree" "$unpacked"' EXIT
dpkg-deb -x "$deb" "$unpacked"
"$unpacked/usr/bin/durac" check --quiet window
"$unpacked/usr/bin/durac" run window -- true
# An editor that says nothing and is gone.
if message=$("$unpacked/usr/bin/durac" lsp 2>&1 </dev/null); then
    echo "the language server took no editor for one" >&2
    exit 1
fi
[[ $message == *"the editor broke off"* ]]
if command -v lintian >/dev/null; then
    # Root's home is nothing that lintian needs.
    lintian --allow-root --fail-on error,warning "$deb"
else
    echo "lintian is not installed: not checked" >&2
fi
echo "$deb"
