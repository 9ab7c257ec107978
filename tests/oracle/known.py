"""Losses that an earlier version of `durac check` did not know of; the explorer must find each."""

import sys

MS, SECOND = 10**6, 10**9


def num(value, unit="syncs"):
    return ["num", value, unit]


def op(sign, a, b):
    return ["bin", sign, a, b]


def read(name):
    return ["read", name]


def end(name):
    return ["verdict", name]


def state(i):
    return ["state", i]


def when(cond, *then):
    return ["if", cond, list(then), []]


def policy(hooks, states=(), params=(), flush=None, callers=1, notify=False):
    target = {"name": "redis.aof" if callers else "posix.log", "own": False, "callers": callers}
    return {
        "name": "known", "kind": "known", "target": target, "hooks": hooks, "flush": flush, "assume": None,
        "notify": notify, "timed": False, "grid": MS,
        "states": [{"name": name, "unit": unit, "initial": 0} for name, unit in states],
        "params": [{"name": name, "unit": "bool", "default": 0, "low": 0, "high": 1} for name in params],
    }  # fmt: skip


def duration(value):
    return num(value, "duration")


def cases():
    """Name, policy, and what some run loses at least."""
    both = op("&&", op("<", read("sync.latency"), read("pending.age")), op(">", read("sync.latency"), duration(5 * MS)))
    a2 = [when(op("&&", both, op("<", read("pending.age"), duration(10 * MS))), end("skip")),
          ["await", "previous"], end("defer")]  # fmt: skip
    yield "a2", policy({"fdatasync": a2}, flush=SECOND), 2
    a3 = [["set", 0, read("pending")], when(op("<", state(0), num(10)), end("fail")), end("skip")]
    yield "a3", policy({"fdatasync": a3}, [("s", "syncs")], flush=SECOND), 1
    a4 = [when(op(">", op("*", read("now"), num(16, "count")), duration(SECOND)), end("skip")), end("pass")]
    yield "a4", policy({"fdatasync": a4}, flush=SECOND), 1
    since = op("<", op("-", read("now"), state(0)), duration(SECOND))
    a5 = [when(op("&&", op("<", state(0), duration(10**6 * SECOND)), since), end("skip")),
          ["set", 0, read("now")], end("pass")]  # fmt: skip
    yield "a5", policy({"fdatasync": a5}, [("last", "duration")], flush=SECOND), 1
    within = [op("<", op("-", read("now"), state(i)), duration(SECOND)) for i in (0, 1)]
    turn = ["if", state(2), [["set", 0, read("now")]], [["set", 1, read("now")]]]
    c1 = [when(op("&&", op("<", state(0), state(1)), op("&&", *within)), end("skip")), turn,
          ["set", 2, ["not", state(2)]], end("pass")]  # fmt: skip
    yield "c1", policy({"fdatasync": c1}, [("a", "duration"), ("b", "duration"), ("t", "bool")], flush=10 * SECOND), 1
    sink = when(op("&&", op(">", state(0), num(0, "bytes")),
                   op("==", op("*", state(0), num(1 << 60, "count")), num(0, "bytes"))),
                ["set", 0, num(0, "bytes")], end("skip"))  # fmt: skip
    d3 = {"write": [["set", 0, op("+", state(0), read("call.len"))], end("pass")],
          "fdatasync": [sink, ["set", 0, num(0, "bytes")], end("pass")]}  # fmt: skip
    yield "d3", policy(d3, [("m", "bytes")], flush=SECOND), 1
    d6 = {"write": [["set", 0, read("pending")], end("pass")],
          "fdatasync": [when(op("<", state(0), num(6)), end("fail")), end("skip")]}  # fmt: skip
    yield "d6", policy(d6, [("s", "syncs")], flush=SECOND), 1
    e4 = {"fdatasync": [["every_calls", 4, [["await", "all"]]], end("skip")]}
    yield "e4", policy(e4, callers=0, flush=10 * SECOND), 4
    below = op("<", state(0), num(2, "count"))
    w3 = {"write": [when(below, ["set", 0, op("+", state(0), num(1, "count"))]), end("pass")],
          "fsync": [when(below, end("skip")), ["await", "all"], ["set", 0, num(0, "count")], end("skip")]}  # fmt: skip
    yield "w7, with 2 instead of 8", policy(w3, [("w", "count")], callers=0, flush=10 * SECOND), 2
    more = when(op(">=", read("pending.bytes"), num(10, "bytes")), ["set", 0, num(1, "bool")])
    between = [when(state(0), end("skip")),
               when(op("<", read("pending.bytes"), num(10, "bytes")), ["await", "pending", num(10)], more),
               ["await", "all"], end("skip")]  # fmt: skip
    yield "a write between two readings", policy({"fdatasync": between}, [("x", "bool")], flush=SECOND), 2
    undone = when(["not", read("notify.done")], ["set", 0, num(1, "bool")])
    between = [when(state(0), end("skip")), when(read("notify.done"), ["await", "pending", num(10)], undone),
               ["await", "all"], end("skip")]  # fmt: skip
    yield "the same with notify.done", policy({"fdatasync": between}, [("x", "bool")], flush=SECOND), 2


def check(explore):
    """Ends the program if a loss is not found."""
    for name, tree, least in cases():
        most = max(max(found.power.values(), default=0) for _, found in explore(tree, least))
        if most < least:
            sys.exit(f"the explorer finds a loss of {most} in {name}, not of {least}")
        print(f"{name}: {most} lost, at least {least} expected")
