#!/usr/bin/env bash
# Runs the supervisor and the agent in containers of a real dockerd, as docs/supervisor.md, "In a container", says.
#
#     tests/docker.sh
#
# Needs root and Debian's package docker.io. The daemon has folders, a socket and a control group of its own, makes no bridge, and ends
# with the script; the image is made here. Not a part of CI.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

need_cargo
install_missing dockerd:docker.io docker:docker.io containerd:containerd cc:gcc jq:jq
cargo build --release --locked -p durac-cli -p durac-preload
place=$(mktemp -d "${TMPDIR:-/tmp}/durac-docker-XXXXXX")
socket=unix://$place/socket
daemon=

finish() {
    local id
    for id in $(docker -H "$socket" ps -aq 2>/dev/null); do
        docker -H "$socket" rm -f "$id" >/dev/null 2>&1 || true
    done
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$place"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# The image: durac, its agent, a static and a dynamic program, a shell, and the libraries of all these.
image=$place/image
mkdir -p "$image"/{bin,etc,tmp,run,proc,data}
chmod 1777 "$image/tmp"
cp target/release/durac target/release/libdurac_preload.so "$image/bin/"
cc -O1 -static -o "$image/bin/static" tests/shims/supervised.c
cc -O1 -o "$image/bin/program" tests/shims/supervised.c
cp -L "$(command -v sh)" "$image/bin/sh"
cp -L "$(command -v cat)" "$(command -v grep)" "$image/bin/"
ldd "$image"/bin/{durac,libdurac_preload.so,program,sh,cat,grep} | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r library; do
    [ -e "$image$library" ] || install -D -m 755 "$(realpath "$library")" "$image$library"
done
printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$image/etc/passwd"
cat >"$image/data/window.dur" <<'END'
policy window
target posix.log
on fdatasync: await pending < 16; defer
flush within 1s
END
# What the container's command does under the policy: syncs lines one by one; then the number of syncs that were acknowledged early.
cat >"$image/data/lines" <<'END'
"$1" idle /tmp/a.log 2000 >/tmp/acknowledged &
while [ "$(grep -c . /tmp/acknowledged)" -lt 2000 ] && kill -0 $!; do :; done
durac metrics | grep '^durac_acknowledged_early_total{.*log="/tmp/a.log"'
kill $!
END

say "dockerd"
dockerd -H "$socket" --data-root "$place/data" --exec-root "$place/exec" --pidfile "$place/pid" --bridge=none \
    --iptables=false --ip6tables=false --storage-driver=vfs >"$place/log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
    docker -H "$socket" version >"$place/version" 2>/dev/null && break
    kill -0 "$daemon" 2>/dev/null || { cat "$place/log" >&2; say "dockerd has ended"; exit 2; }
    sleep 0.1
done
grep -A2 -i '^server\|engine:' "$place/version" | grep -i version >&2 || true
tar -C "$image" -c . | docker -H "$socket" import - durac >/dev/null

failed=0
right() { printf 'ok      %s\n' "$*"; }
wrong() {
    printf 'WRONG   %s\n' "$*"
    sed 's/^/        /' "$place/out" "$place/err"
    failed=1
}

# run WORDS…: `docker run` with these; its output in out and err, its exit code in $code.
run() {
    code=0
    timeout 120 docker -H "$socket" run --rm --network none "$@" >"$place/out" 2>"$place/err" </dev/null || code=$?
}

early() { grep -o '[0-9]*$' "$place/out" || echo 0; }

# defers ENGINE FLAGS…: the policy is in force in a container with these flags.
defers() {
    local engine=$1 program=static
    shift
    [ "$engine" = supervisor ] || program=program
    run "$@" durac durac run --engine "$engine" /data/window.dur -- sh /data/lines "$program"
    if [ "$code" = 0 ] && [ "$(early)" -gt 1000 ]; then right "$engine: ${*:-no flags}"; else wrong "$engine: ${*:-no flags}: exit code $code"; fi
}

# refused WHAT FLAGS…: the supervisor does not start the command, and says WHAT.
refused() {
    local what=$1
    shift
    run "$@" durac durac run --engine supervisor /data/window.dur -- static append /tmp/a.log 1 10
    if [ "$code" = 2 ] && grep -q "$what" "$place/err" && [ ! -s "$place/out" ]; then
        right "not started: ${*:-no flags}"
    else
        wrong "not started: ${*:-no flags}: exit code $code"
    fi
}

refused 'cannot be taken'
defers thread
defers supervisor --security-opt seccomp=unconfined
for flags in "" --init "--user 1000" "--cap-drop ALL" "--pid host" "--ulimit nofile=32" "--security-opt no-new-privileges"; do
    # shellcheck disable=SC2086 # words of a list
    defers supervisor --cap-add SYS_PTRACE $flags
done
refused "cannot create .*/run/durac" --cap-add SYS_PTRACE --read-only --tmpfs /tmp
defers supervisor --cap-add SYS_PTRACE --read-only --tmpfs /tmp --tmpfs /run

# No thread can be started: told, and the syncs are direct.
run --cap-add SYS_PTRACE --pids-limit 6 durac durac run --engine supervisor /data/window.dur -- static append /tmp/a.log 1 200
if [ "$code" = 0 ] && [ "$(wc -l <"$place/out")" = 200 ] && grep -q 'thread' "$place/err"; then
    right "--pids-limit 6"
else
    wrong "--pids-limit 6: exit code $code"
fi

# ended HOW CODE: `docker HOW` ends the container with this exit code.
ended() {
    local id code
    id=$(docker -H "$socket" run -d --network none --cap-add SYS_PTRACE durac durac run --engine supervisor /data/window.dur -- \
        static idle /tmp/a.log 200)
    for _ in $(seq 300); do
        docker -H "$socket" logs "$id" >"$place/out" 2>"$place/err"
        [ "$(wc -l <"$place/out")" = 200 ] && break
        sleep 0.1
    done
    docker -H "$socket" "$1" "$id" >/dev/null
    code=$(docker -H "$socket" wait "$id")
    if [ "$code" = "$2" ]; then right "docker $1: exit code $code"; else wrong "docker $1: exit code $code"; fi
}

ended stop 143
ended kill 137

# A process that `docker exec` starts beside is not in; one that runs durac there has a supervisor of its own.
id=$(docker -H "$socket" run -d --network none --cap-add SYS_PTRACE durac durac run --engine supervisor /data/window.dur -- static idle /tmp/b.log 20)
docker -H "$socket" exec "$id" static append /tmp/a.log 1 2000 >"$place/out" 2>"$place/err"
docker -H "$socket" exec "$id" durac metrics >"$place/out" 2>"$place/err"
if grep -q 'b.log' "$place/out" && ! grep -q 'a.log' "$place/out"; then right "docker exec: not in"; else wrong "docker exec: not in"; fi
code=0
docker -H "$socket" exec "$id" durac run --engine supervisor /data/window.dur -- sh /data/lines static >"$place/out" 2>"$place/err" || code=$?
if [ "$code" = 0 ] && [ "$(early)" -gt 1000 ]; then right "docker exec durac run"; else wrong "docker exec durac run"; fi

exit "$failed"
