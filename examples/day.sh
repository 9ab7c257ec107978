#!/usr/bin/env bash
# An operator's day, from the installation to the way back: docs/day.md tells it. For a Debian machine that has systemd
# and Debian's redis-server and nothing on it that is missed: it changes /etc/redis/redis.conf and restarts the server.
#
#     bash examples/day.sh [DURAC]       # as root; DURAC is the built program, with its agent beside it
set -euo pipefail

durac=${1:-durac}
work=$(mktemp -d /var/tmp/durac-day.XXXXXX)
trap 'rm -rf "$work"' EXIT
conf=/etc/redis/redis.conf
cd "$work"

# Shows a command, and runs it.
step() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}
# One that has to fail: it says what is wrong.
wrong() {
    printf '\n$ %s\n' "$1"
    if eval "$1"; then
        echo "this has not failed" >&2
        exit 1
    fi
}
heading() {
    printf '\n# %s\n' "$1"
}
# Waits for the server.
answers() {
    local try
    for try in $(seq 3000); do
        redis-cli -p "$1" ping >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "no server on port $1 after $try looks" >&2
    return 1
}

heading "Install"
step "$durac install | tail -n 3"
hash -r
step "durac list | head -n 8"

heading "What keeps a policy from having an effect here?"
wrong "durac doctor $conf"

heading "Which policy? Record what the application does"
step "mkdir data"
step "durac record -o trace.json -- redis-server --port 7777 --dir data --appendonly yes --appendfsync always >server.log &"
answers 7777
step "redis-benchmark -p 7777 -t set -n 20000 -r 100000 -c 20 -q"
step "redis-cli -p 7777 shutdown"
wait
step "durac advise trace.json --at-most 100updates --at-most 200ms --device cloud-volume -o day.dur"
step "cat day.dur"

heading "Enable it for the unit"
step "sed -i 's/^appendonly .*/appendonly yes/; s/^appendfsync .*/appendfsync always/' $conf"
step "durac enable redis-server day.dur --now"
answers 6379

heading "Watch"
step "redis-benchmark -t set -n 20000 -r 100000 -c 20 -q"
step "durac top --once"
step "durac metrics | grep -E '^durac_(at_risk_updates|bound_updates|late_calls_total|policy_on)'"
step "durac doctor"

heading "Another policy, while it runs, and for the next start"
step "durac reload window:n=16 :6379 --save"
step "durac set n=8 --save"
step "redis-cli set greeting hello"

heading "Something looks wrong: off, and on again"
step "durac off"
step "redis-cli set greeting 'hello again'"
step "durac top --once"
step "durac on"

heading "After a restart"
step "systemctl restart redis-server"
answers 6379
step "redis-cli get greeting"
step "durac show \"\$(pidof redis-server)\" | head -n 5"

heading "Roll back"
step "durac disable redis-server --now"
answers 6379
step "redis-cli get greeting"
wrong "durac top --once"
