#!/usr/bin/env bash
# A real Redis Cluster of three masters with a replica each on this machine, under a policy: what docs/cluster.md says.
#
#     cluster.sh [FOLDER-WITH-durac]      (default: target/release)
#
# 1. All six run under a policy that was rolled out node by node, replicas first, while a client writes: nothing is lost.
# 2. A master is killed and its replica takes over: what the replica has counts, not what the master's disk has.
# 3. A master loses its tail and is back before the others miss it: the replica that had the tail drops it, too.
# Minutes, and six servers: for the night, not for CI.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
durac=$(realpath "${1:-target/release}")/durac
base=${DURAC_CLUSTER_PORT:-21000}
work=$(mktemp -d)
declare -A pid
failed=0

finish() {
    local node
    for node in "${!pid[@]}"; do kill -KILL "${pid[$node]}" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

say() { printf '%s\n' "$*"; }
wrong() {
    printf 'wrong: %s\n' "$*"
    failed=1
}
cli() { redis-cli -p $((base + $1)) "${@:2}" 2>/dev/null; }

# start NODE [POLICY [SET…]]: starts a node, under a policy or without, and waits until it serves.
start() {
    local node=$1 port=$((base + $1)) folder=$work/$1 run=()
    shift
    if [ $# -gt 0 ]; then
        run=("$durac" run "$1")
        local set
        for set in "${@:2}"; do run+=(--set "$set"); done
        run+=(--)
    fi
    mkdir -p "$folder"
    "${run[@]}" redis-server --port "$port" --bind 127.0.0.1 --dir "$folder" --cluster-enabled yes \
        --cluster-node-timeout 3000 --appendonly yes --appendfsync always --save '' \
        --repl-diskless-sync-delay 0 --logfile redis.log >"$folder/out" 2>&1 </dev/null &
    pid[$node]=$!
    # What a signal ends is told by the shell else.
    disown
    until cli "$node" ping | grep -q PONG; do sleep 0.1; done
}

stop() {
    cli "$1" shutdown nosave || true
    while kill -0 "${pid[$1]}" 2>/dev/null; do sleep 0.1; done
}

role() { cli "$1" info replication | tr -d '\r' | sed -n 's/^role://p'; }
until_role() { until [ "$(role "$1")" = "$2" ]; do sleep 0.1; done; }
# take_over NODE: a replica becomes master; a manual failover gives up after some seconds.
take_over() {
    local try
    until [ "$(role "$1")" = master ]; do
        cli "$1" cluster failover >/dev/null || true
        for ((try = 0; try < 60; try++)); do
            [ "$(role "$1")" = master ] && return
            sleep 0.1
        done
    done
}
until_ok() {
    local node
    for node in 0 1 2 3 4 5; do
        until cli "$node" cluster info | grep -q 'cluster_state:ok'; do sleep 0.1; done
    done
}
# Until a replica has everything that its master has.
until_synced() {
    until cli "$1" info replication | grep -q 'master_link_status:up' &&
        [ "$(cli "$1" info replication | tr -d '\r' | sed -n 's/^slave_repl_offset://p')" = \
            "$(cli "$2" info replication | tr -d '\r' | sed -n 's/^master_repl_offset://p')" ]; do sleep 0.1; done
}
# write FIRST COUNT TAG FILE: writes keys of one slot, one by one; the file gets those that were acknowledged.
write() {
    local from=$1 count=$2 tag=$3 file=$4 node=${5:-0}
    for ((i = from; i < from + count; i++)); do
        if [ "$(redis-cli -c -p $((base + node)) set "{$tag}$i" "$i" 2>/dev/null)" = OK ]; then
            echo "{$tag}$i" >>"$file"
        fi
    done
}
# missing FILE: how many of the acknowledged keys are not there.
missing() {
    local there
    there=$(xargs -a "$1" -n 50 redis-cli -c -p $((base + ${2:-0})) exists 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }')
    echo $(($(wc -l <"$1") - there))
}
# The node (0, 1 or 2, or a replica) that serves a key now.
server_of() {
    local slot node
    slot=$(cli 0 cluster keyslot "{$1}")
    for node in 0 1 2 3 4 5; do
        [ "$(role "$node")" = master ] || continue
        if cli "$node" cluster countkeysinslot "$slot" | grep -qv '^0$'; then
            echo "$node"
            return
        fi
    done
}
# The replica of a master.
replica_of() {
    local port node
    port=$(cli "$1" info replication | tr -d '\r' | sed -n 's/^slave0:.*port=\([0-9]*\),.*/\1/p')
    node=$((port - base))
    echo "$node"
}

say "== a cluster without a policy"
for node in 0 1 2 3 4 5; do start "$node"; done
addresses=()
for node in 0 1 2 3 4 5; do addresses+=("127.0.0.1:$((base + node))"); done
redis-cli --cluster create "${addresses[@]}" --cluster-replicas 1 --cluster-yes >"$work/create" 2>&1 || { cat "$work/create"; exit 1; }
until_ok

say "== 1. rolled out node by node: replicas first, then each master once its replica has taken over"
write 0 10 roll "$work/roll"
masters=() replicas=()
for node in 0 1 2 3 4 5; do
    if [ "$(role "$node")" = master ]; then masters+=("$node"); else replicas+=("$node"); fi
done
# The client asks whichever node is there.
(for ((round = 0; round < 100000; round++)); do
    write $((1000 + round)) 1 roll "$work/roll" $((round % 6)) || true
done) &
writer=$!
disown
for node in "${replicas[@]}"; do
    stop "$node"
    start "$node" window n=16
    until cli "$node" info replication | grep -q 'master_link_status:up'; do sleep 0.1; done
done
for node in "${masters[@]}"; do
    replica=$(replica_of "$node")
    take_over "$replica"
    until_role "$node" slave
    stop "$node"
    start "$node" window n=16
    until cli "$node" info replication | grep -q 'master_link_status:up'; do sleep 0.1; done
done
kill "$writer" 2>/dev/null || true
until_ok
say "   acknowledged $(wc -l <"$work/roll"), lost $(missing "$work/roll")"
[ "$(missing "$work/roll")" = 0 ] || wrong "the rollout lost acknowledged writes"
for node in 0 1 2 3 4 5; do
    "$durac" doctor "${pid[$node]}" >"$work/doctor" || wrong "$(cat "$work/doctor")"
done
say "   durac doctor has looked at all six"

say "== WAIT counts replicas, not disks"
say "   WAIT 1 1000: $(redis-cli -p $((base + $(server_of roll))) <<<$'set {roll}w 1\nwait 1 1000' | tail -1)"
say "   WAITAOF 1 0 1000: $(redis-cli -p $((base + $(server_of roll))) <<<$'set {roll}w 1\nwaitaof 1 0 1000' 2>&1 | tail -1)"

say "== 2. a master is killed under load, and its replica takes over"
master=$(server_of roll)
replica=$(replica_of "$master")
write 200000 300 roll "$work/killed" "$replica"
kill -KILL "${pid[$master]}"
until_role "$replica" master
until cli "$replica" cluster info | grep -q 'cluster_state:ok'; do sleep 0.1; done
say "   acknowledged $(wc -l <"$work/killed"), lost $(missing "$work/killed" "$replica")"
start "$master" window n=16
until_role "$master" slave
until_ok

say "== 3. a master loses its tail and is back before the others miss it"
# What is staged and never flushed dies with the process: that stands for the power loss of one machine.
printf 'target redis.aof\non write: stage\non fdatasync: skip\n' >"$work/late.dur"
for node in 0 1 2 3 4 5; do cli "$node" config set cluster-node-timeout 60000 >/dev/null; done
replica=$(server_of roll)
master=$(replica_of "$replica")
stop "$master"
start "$master" "$work/late.dur"
until_synced "$master" "$replica"
take_over "$master"
until_role "$replica" slave
until_synced "$replica" "$master"
write 300000 50 roll "$work/tail" "$master"
until_synced "$replica" "$master"
before=$(missing "$work/tail" "$master")
kill -KILL "${pid[$master]}"
start "$master" window n=16
until_synced "$replica" "$master"
say "   the killed node is $(role "$master"), its replica $(role "$replica")"
after=$(missing "$work/tail" "$master")
say "   acknowledged $(wc -l <"$work/tail"), all received by the replica; missing before the crash $before, after it $after"
[ "$before" = 0 ] && [ "$after" -gt 0 ] || wrong "the replica has kept what its master lost: docs/cluster.md says otherwise"

exit "$failed"
