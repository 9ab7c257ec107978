# Sourced by the scripts: says what they do, and installs what is missing.
# shellcheck shell=bash

# A heading on stderr, so that stdout stays the product.
say() {
    printf '\n==> %s\n' "$*" >&2
}

# The packages, of those named as COMMAND-OR-FILE:PACKAGE, whose command or file is not there.
missing_packages() {
    local pair what
    for pair in "$@"; do
        what=${pair%%:*}
        case $what in
            /*) [ -e "$what" ] || echo "${pair#*:}" ;;
            *) command -v "$what" >/dev/null 2>&1 || echo "${pair#*:}" ;;
        esac
    done | sort -u
}

# Installs the missing ones. Fails, and says why, without root or a package source.
install_missing() {
    # Tools for root live in sbin, which is not on everybody's PATH.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    local packages
    mapfile -t packages < <(missing_packages "$@")
    [ "${#packages[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        say "missing: ${packages[*]} (only root can install them)"
        return 1
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        say "missing: ${packages[*]} (there is no apt-get to install them)"
        return 1
    fi
    say "installing ${packages[*]}"
    if ! apt_install "${packages[@]}"; then
        say "could not install ${packages[*]}"
        return 1
    fi
    # These packages also have their daemon started at the next boot.
    local daemon
    for daemon in redis-server influxdb; do
        if [[ " ${packages[*]} " == *" $daemon "* ]] && command -v systemctl >/dev/null 2>&1; then
            systemctl --quiet disable "$daemon" >&2 || true
        fi
    done
}

# In a subshell, so that its trap and its settings are its own.
apt_install() (
    export DEBIAN_FRONTEND=noninteractive
    # The same packages start it, which nobody asked for: runlevel 1 and this policy
    # forbid it, during this installation only. A policy that is there already stays as it is.
    export RUNLEVEL=1
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    options=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2)
    # Lists may be absent or old; the installation then says what is wrong.
    apt-get "${options[@]}" update </dev/null >&2 || true
    apt-get "${options[@]}" install -y --no-install-recommends "$@" </dev/null >&2
)

# Rust is the one thing that the scripts do not install.
need_cargo() {
    if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$PATH:$HOME/.cargo/bin
    fi
    if ! command -v cargo >/dev/null 2>&1; then
        say "cargo is not on PATH: install Rust first, see https://rustup.rs"
        return 1
    fi
}
