"""Random policies, as trees (`language`). The same seed gives the same policy.

Each policy is of one kind, which says where its danger is: counters, readings of time, bytes, parameters,
several threads, staged writes, a bound in time, times that are kept beside a deadline. Most end their calls acknowledged, because what is not
acknowledged is not lost, and most wait somewhere, because what never waits loses any number.
"""

import random

MS = 10**6
SECOND = 1000 * MS

KINDS = ["plain", "threads", "time", "bytes", "params", "staged", "notify", "age", "dated", "mixed"]

REAL_KINDS = ["plain", "time", "bytes", "params", "staged", "mixed"]

# Constants near 2^64 / 2^k, for arithmetic that wraps around.
GREAT = [1 << 60, 1 << 62, (1 << 63) - 1, (1 << 63) - 2, 1 << 32]


class Generator:
    """With `real`, a policy for one caller that a real program can run in a fraction of a second: times
    are those of a disk whose syncs take up to half a millisecond, and no call fails."""

    def __init__(self, seed, real=False):
        self.random = random.Random(f"durac {seed} {real}")
        kinds = REAL_KINDS if real else KINDS
        self.kind = kinds[seed % len(kinds)]
        self.real = real
        self.durations = [MS // 5, MS // 5, MS // 2, 5 * MS] if real else [5 * MS, 5 * MS, 10 * MS, SECOND]
        self.seed = seed
        self.hook = None

    def one(self, *choices):
        return self.random.choice(choices)

    def chance(self, percent):
        return self.random.randrange(100) < percent

    def is_kind(self, *kinds):
        return self.kind in kinds or (self.kind == "mixed" and self.chance(40))

    # ---- declarations ----

    def policy(self):
        many = self.is_kind("threads") and not self.real
        self.params, self.states = [], []
        self.staging = self.is_kind("staged")
        self.times = self.is_kind("time")
        self.bytes = self.is_kind("bytes")
        flush = assume = None
        timed, grid = False, 5 * MS
        if self.kind == "age":
            # d >= 2s, multiples of the grid.
            assume = self.one(5, 10) * MS
            grid = assume if self.chance(50) else 5 * MS
            if self.chance(70):
                flush = 2 * assume + self.one(0, 1, 2) * 10 * MS
            timed, self.staging = True, self.chance(30)
        elif self.times or self.chance(40):
            flush = self.one(*(2 * MS, 20 * MS, SECOND) if self.real else (10 * MS, SECOND, 10 * SECOND))
        if self.is_kind("params") or self.chance(10):
            self.declare_params()
        self.declare_states()
        if many:
            own = self.staging or self.chance(30)
            target = {"name": "my.log" if own else "posix.log", "own": own, "callers": 0}
        else:
            own = self.chance(10) and not self.real
            target = {"name": "my.log" if own else "redis.aof", "own": own, "callers": 1}
        hooks = {}
        if self.staging or self.chance(20):
            hooks["write"] = self.body("write")
        if self.kind == "dated":
            flush = self.one(10, 20) * MS
            hooks["fdatasync"] = self.dated(flush)
        else:
            hooks["fdatasync"] = self.body("fdatasync")
        if self.chance(15):
            hooks["fsync"] = self.body("fsync")
        return {
            "name": f"p{self.seed}", "kind": self.kind, "target": target, "params": self.params,
            "states": self.states, "hooks": hooks, "flush": flush, "assume": assume,
            "notify": self.is_kind("notify") and not target["own"] and not many, "timed": timed, "grid": grid,
        }  # fmt: skip

    def declare_params(self):
        for name in ("n", "m")[: 1 + self.chance(25)]:
            unit = self.one("syncs", "syncs", "syncs", "count", "bool")
            low = self.one(0, 1, 1, 1, 2)
            high = low + self.one(1, 1, 2, 3, 63, 4095)
            if unit == "bool":
                low, high = 0, 1
            default = self.random.randint(low, min(high, low + 3))
            self.params.append({"name": name, "unit": unit, "low": low, "high": high, "default": default})

    def declare_states(self):
        units = ["bool", "count", "syncs"]
        if self.times:
            units += ["duration"] * 3
        if self.bytes:
            units += ["bytes"] * 3
        for name in "abc"[: self.one(0, 1, 1, 2, 2, 3)]:
            unit = self.one(*units)
            self.states.append({"name": name, "unit": unit, "initial": 0})

    def dated(self, flush):
        """Calls that are skipped when a time is over that is near the deadline."""
        periods = [flush - 5 * MS, flush, flush + 5 * MS, 2 * flush]
        stmts = []
        for _ in range(self.one(1, 1, 2)):
            then = [["verdict", self.one("skip", "skip", "defer")]]
            if self.chance(30):
                then = [self.one(["every_time", self.one(*periods), then], ["if", self.cond(1), then, []])]
            if self.chance(30):
                self.states.append({"name": f"t{len(self.states)}", "unit": "duration", "initial": 0})
                last, now = len(self.states) - 1, ["read", "now"]
                age = ["bin", "-", now, ["state", last]]
                late = ["bin", self.one(">=", ">"), age, ["num", self.one(*periods), "duration"]]
                first = [["set", last, self.one(now, now, now, ["num", 0, "duration"])]]
                stmts.append(["if", late, first + then, []])
            else:
                stmts.append(["every_time", self.one(*periods), then])
        if self.chance(20):
            self.hook, self.waits = "fdatasync", 0
            stmts.insert(self.random.randrange(len(stmts) + 1), self.one(self.wait(), self.stmt(1)))
        end = self.one("pass", "pass", "pass", "defer")
        return self.open(stmts) + [["verdict", end]]

    # ---- statements ----

    def body(self, hook):
        self.hook, self.waits = hook, 0
        stmts = []
        for _ in range(self.one(1, 1, 2, 2, 3)):
            stmts.append(self.stmt(2))
        if hook == "write":
            end = self.one("stage", "stage", "stage", "pass") if self.staging else "pass"
        else:
            end = self.one("defer", "defer", "defer", "skip", "skip", "skip", "pass")
            if self.chance(35) and not self.waits:
                stmts.append(self.wait())
        return self.open(stmts) + [["verdict", end]]

    def open(self, stmts):
        """Nothing follows a verdict."""
        out = []
        for stmt in stmts:
            out.append(stmt)
            if self.ends(stmt):
                break
        return out if not out or not self.ends(out[-1]) else out[:-1]

    def ends(self, stmt):
        return stmt[0] == "verdict" or (
            stmt[0] == "if" and all(part and self.ends(part[-1]) for part in (stmt[2], stmt[3]))
        )

    def stmt(self, depth):
        pick = self.random.randrange(100)
        if depth == 0 or pick < 30:
            return self.simple(depth)
        if pick < 75:
            then = self.block(depth - 1)
            otherwise = self.block(depth - 1) if self.chance(40) else []
            return ["if", self.cond(2), then, otherwise]
        body = self.block(depth - 1)
        if self.times and self.chance(50):
            return ["every_time", self.one(self.durations[0], self.durations[-1]), body]
        return ["every_calls", self.one(2, 3, 4, 5), body]

    def block(self, depth):
        stmts = [self.stmt(depth) for _ in range(self.one(1, 1, 2))]
        cut = next((i for i, stmt in enumerate(stmts) if self.ends(stmt)), len(stmts) - 1)
        return stmts[: cut + 1]

    def simple(self, depth):
        pick = self.random.randrange(100)
        if pick < 30 and depth < 2:
            return ["verdict", self.verdict()]
        if pick < 60:
            return self.wait()
        if pick < 66 and self.staging:
            return ["commit"]
        if self.states:
            i = self.random.randrange(len(self.states))
            return ["set", i, self.value(self.states[i]["unit"])]
        return self.wait()

    def verdict(self):
        fail = "pass" if self.real else "fail"
        if self.hook == "write":
            return self.one("pass", "pass", "stage" if self.staging else "pass", fail)
        return self.one("pass", "pass", "skip", "skip", "defer", "defer", fail)

    def wait(self):
        self.waits += 1
        pick = self.random.randrange(100)
        if pick < 35:
            return ["await", "previous"]
        if pick < 55:
            return ["await", "all"]
        return ["await", "pending", self.distance()]

    def distance(self):
        params = [i for i, p in enumerate(self.params) if p["unit"] == "syncs" and p["low"] > 0]
        number = ["num", self.one(1, 2, 2, 3, 3, 4), "syncs"]
        if params and self.chance(80):
            param = ["param", self.one(*params)]
            return param if self.chance(70) else ["bin", self.one("+", "+", "*"), param, number]
        counted = [i for i, s in enumerate(self.states) if s["unit"] == "syncs"]
        if counted and self.chance(10):
            return ["bin", "+", ["state", self.one(*counted)], number]
        return number

    # ---- expressions ----

    def cond(self, depth):
        pick = self.random.randrange(100)
        if depth and pick < 35:
            return ["bin", self.one("&&", "||"), self.cond(depth - 1), self.cond(depth - 1)]
        if depth and pick < 42:
            return ["not", self.cond(depth - 1)]
        flags = [["state", i] for i, s in enumerate(self.states) if s["unit"] == "bool"]
        flags += [["param", i] for i, p in enumerate(self.params) if p["unit"] == "bool"]
        flags += [["read", "notify.done"], ["read", "child.active"]]
        if pick < 55:
            return self.one(*flags)
        unit = self.unit()
        op = self.one("<", "<", "<=", ">", ">", ">=", "==", "!=")
        left = self.term(unit)
        right = self.constant(unit) if self.chance(65) else self.term(unit)
        return ["bin", op, left, right]

    def unit(self):
        units = ["syncs", "syncs", "syncs"]
        units += [s["unit"] for s in self.states if s["unit"] != "bool"] * 2
        units += [p["unit"] for p in self.params if p["unit"] != "bool"] * 2
        if self.times:
            units += ["duration"] * 6
        if self.bytes:
            units += ["bytes"] * 6
        if self.kind == "notify":
            units += ["count"]
        return self.one(*units)

    def atoms(self, unit):
        atoms = [["state", i] for i, s in enumerate(self.states) if s["unit"] == unit] * 2
        atoms += [["param", i] for i, p in enumerate(self.params) if p["unit"] == unit] * 2
        reads = {
            "syncs": ["pending", "pending"] + (["staged"] * 3 if self.staging else []),
            "duration": ["sync.latency", "pending.age", "now"],
            "bytes": ["pending.bytes", "call.len" if self.hook == "write" else "pending.bytes"],
            "count": ["notify.count"] if self.chance(20) or not atoms else [],
        }
        return atoms + [["read", name] for name in reads.get(unit, [])]

    def term(self, unit):
        atom = self.one(*self.atoms(unit))
        if self.chance(70):
            return atom
        op = self.one("+", "+", "-", "-", "*", "/", "%")
        if op in ("+", "-"):
            other = self.one(*self.atoms(unit)) if self.chance(50) else self.constant(unit)
            return ["bin", op, atom, other] if self.chance(75) else ["bin", op, other, atom]
        if op == "*":
            factor = self.one(*GREAT) if self.chance(35) else self.one(2, 3)
            return ["bin", "*", atom, ["num", factor, "count"]]
        if op == "%" and unit in ("duration", "bytes"):
            return ["bin", "%", atom, self.constant(unit)]
        return ["bin", op, atom, ["num", self.one(2, 3, 4), unit if unit in ("syncs", "count") and op == "%" else "count"]]

    def constant(self, unit):
        if unit == "duration":
            return ["num", self.one(*self.durations), unit]
        if unit == "bytes":
            return ["num", self.one(1, 2, 3, 8, 4096), unit]
        return ["num", self.one(1, 2, 2, 3, 3, 4, 5), unit]

    def value(self, unit):
        if unit == "bool":
            return ["num", self.one(0, 1), unit] if self.chance(40) else self.cond(1)
        pick = self.random.randrange(100)
        if pick < 30:
            return ["num", 0, unit]
        mine = [["state", i] for i, s in enumerate(self.states) if s["unit"] == unit]
        if pick < 65 and unit not in ("duration",):
            step = ["bin", "+", self.one(*mine), ["num", 1, unit]]
            if self.chance(40) and unit in ("count", "syncs"):
                return ["bin", "%", step, ["num", self.one(2, 3, 4), unit]]
            return step
        return self.term(unit)


def policy(seed, real=False):
    return Generator(seed, real).policy()
