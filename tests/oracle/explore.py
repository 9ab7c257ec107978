"""What the world can do to a log under a policy, followed step by step up to a limit.

The rules are those of docs/loss.md and docs/language.md, written down once more and as directly as
possible: bytes have positions, syncs have a beginning and an end on a clock, a call is lost if it was
acknowledged and its last byte is not on the disk. Nothing is abstracted. What is left out only makes the
world milder, so every loss found here can happen:

- at most one background sync and one sync of the application's own are out at a time, and a background sync
  begins only while no other is out;
- parameters, lengths of writes and steps of the clock are taken from short lists (`Bounds`).
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from language import MASK, Code, all_exprs, numbers, uses_clock

MS = 10**6
# A requested sync starts within this (docs/loss.md, the table under "Time").
PACE = 10 * MS

# Fields of a state.
(NOW, VARS, CALLS, DURABLE, POSITION, MARK, COVERED, FILED, STAGED_AFTER, ACKNOWLEDGED, PENDING, BACKGROUND,
 LATENCY, COUNT, MISSED, SYNCED, REQUEST, THREADS, NEWEST, STAGED, LANDED, WRITES) = range(22)


@dataclass
class Bounds:
    """How far to look."""

    states: int = 4000
    # Acknowledged calls that are lost: enough is found.
    loss: int = 6
    threads: int = 2
    writes: int = 1


@dataclass
class Found:
    """The worst that was seen; `power` and `process` by the parameters of the newest acknowledged call."""

    power: dict = field(default_factory=dict)
    process: dict = field(default_factory=dict)
    power_age: int = 0
    process_age: int = 0
    states: int = 0
    # Every state was followed, and no run was cut short.
    complete: bool = False
    cut: bool = False
    runs: dict = field(default_factory=dict)


class Explorer:
    """One policy."""

    def __init__(self, policy, bounds):
        self.policy, self.bounds = policy, bounds
        self.code = {hook: Code(policy, body) for hook, body in policy["hooks"].items()}
        reads = set().union(*(code.reads for code in self.code.values())) if self.code else set()
        self.reads = reads
        self.stages = any(end == ("end", "stage") for c in self.code.values() for end in c.code)
        self.one = policy["target"]["callers"] == 1
        self.flush, self.assume = policy["flush"], policy["assume"]
        # Under an assumption, time passes only as fast as the assumption allows.
        self.timed = bool(self.assume) and policy["timed"]
        self.clock = bool({"now", "pending.age", "sync.latency"} & reads) or bool(self.flush) or self.timed
        self.absolute = uses_clock(policy)
        self.period = {i: s["period"] for i, s in enumerate(policy["states"]) if s["name"].startswith(".every_time")}
        self.steps = self.deltas()
        # Ages above this are taken as equal, and no time passes for a call that is older.
        self.old = 2 * max(self.steps, default=0) + (100 * MS if self.timed else 0)
        self.lens = self.lengths()
        self.params = self.parameters()
        self.syncs = [hook for hook in self.code if hook != "write"] or ["fdatasync"]
        self.found = Found()
        # Calls that may be begun and not durable: those that were failed count too.
        most = max((n for n in self.constants("syncs") if n <= 12), default=0)
        self.room = bounds.loss + 3 + most

    # ---- the lists that a choice is made from ----

    def constants(self, unit):
        """Constants of a unit that the policy compares with."""
        exprs = [e for body in self.policy["hooks"].values() for e in all_exprs(body)]
        return {n[1] for e in exprs for n in numbers(e) if n[2] == unit and 0 < n[1] < 2**50}

    def deltas(self):
        if not self.clock:
            return ()
        if self.timed:
            return (self.policy["grid"],)
        marks = self.constants("duration") | set(self.period.values())
        if self.flush and self.flush <= 4 * max(marks, default=self.flush):
            # Else no deadline is ever broken.
            marks.add(self.flush)
        if not marks:
            return (MS,)
        return tuple(sorted({min(marks) // 3 + 1} | {m + 1 for m in marks})[:4])

    def lengths(self):
        if not {"call.len", "pending.bytes"} & self.reads:
            return (1,)
        marks = sorted(self.constants("bytes"))[:2]
        near = {1} | {m for m in marks if m < 2**30} | {m - 1 for m in marks if 1 < m < 2**30}
        # A factor of 2^60 makes 0 of 16.
        exprs = [e for body in self.policy["hooks"].values() for e in all_exprs(body)]
        great = {n[1] for e in exprs for n in numbers(e) if n[1] >= 2**50}
        near |= {(MASK + 1) // g for g in great if (MASK + 1) % g == 0}
        return tuple(sorted(near))

    def parameters(self):
        """Vectors of parameters: all of them, or those near the ends of the ranges."""
        vectors = [()]
        for p in self.policy["params"]:
            low, high = p["low"], p["high"]
            few = range(low, high + 1) if high - low < 4 else sorted({low, low + 1, p["default"], high})
            vectors = [v + (value,) for v in vectors for value in few]
        return vectors[:12]

    # ---- the walk ----

    def first(self):
        policy = self.policy
        values = tuple(s["initial"] for s in policy["states"])
        threads = (None,) * self.bounds.threads
        for now in (3600 * 10**9, 5 * MS) if self.absolute else (10**15,):
            state = [0] * 22
            state[NOW], state[VARS], state[THREADS] = now, values, threads
            state[STAGED_AFTER] = 0 if self.stages else -1
            state[PENDING], state[STAGED], state[REQUEST], state[BACKGROUND] = (), (), None, None
            yield state

    def explore(self):
        """Follows in turn the oldest state, the one that has lost most, and a random run."""
        found, chance = self.found, random.Random(1)
        oldest, worst, done, parents, serial = deque(), [], set(), {}, 0
        ahead = []

        def push(state, parent, label):
            nonlocal serial
            key = self.key(state)
            if key in parents:
                return
            ahead.append((key, state))
            parents[key] = (parent, label)
            serial += 1
            oldest.append((key, state))
            heapq.heappush(worst, (-self.weight(state), serial, key, state))
            self.look(state, key)

        self.parents = parents
        for state in self.first():
            push(state, None, "")
        turn, run = 0, None
        while oldest:
            if len(done) >= self.bounds.states:
                break
            turn += 1
            if turn % 3 == 0 and worst:
                _, _, key, state = heapq.heappop(worst)
            elif turn % 3 == 1 and run is not None:
                key, state = run
            else:
                key, state = oldest.popleft()
            if key in done:
                run = run if turn % 3 else chance.choice(oldest) if oldest else None
                continue
            done.add(key)
            if sum(p[2] for p in state[PENDING]) >= self.bounds.loss:
                found.cut = True
                if self.enough():
                    break
                continue
            ahead.clear()
            for label, after in self.successors(state):
                push(after, key, label)
            if turn % 3 == 1:
                run = chance.choice(ahead) if ahead else chance.choice(oldest) if oldest else None
        found.states = len(done)
        found.complete = not oldest and not found.cut
        return found

    def enough(self):
        """Whether as much was lost as is looked for, in each way that the policy can lose it."""
        by_params = [self.found.power] + [self.found.process] * self.stages
        most = [max(losses.values(), default=0) for losses in by_params]
        return len(self.params) == 1 and not self.timed and min(most) >= self.bounds.loss

    def weight(self, s):
        """What a crash takes now: of two states, the one with more is followed first."""
        acknowledged = [p[3] for p in s[PENDING] if p[2]]
        if self.timed:
            return s[NOW] - min(acknowledged, default=s[NOW])
        return 8 * len(acknowledged) + s[CALLS] - s[DURABLE]

    def key(self, s):
        """What tells two states apart. Nothing is merged but what is counted from another origin."""
        now, base, bytes_ = s[NOW], s[DURABLE], s[COVERED]
        values = s[VARS]
        if self.period and not self.absolute:
            values = tuple(
                min(now - v, self.period[i]) if i in self.period else v for i, v in enumerate(values)
            )
        if self.absolute:
            age = int
        elif self.clock:
            age = lambda t: min(now - t, self.old)  # noqa: E731
        else:
            age = lambda t: 0  # noqa: E731
        pending = tuple((p[0] - base, p[1] - bytes_, p[2], age(p[3]) if p[2] else 0) for p in s[PENDING])
        bg = s[BACKGROUND]
        if bg:
            bg = (age(bg[0]), bg[1] - base, max(bg[2] - bytes_, 0), age(bg[3]), bg[4])
        missed = s[MISSED] - s[SYNCED]
        threads = []
        for t in s[THREADS]:
            if t is None:
                threads.append((0,))
            elif t[0] == "wait":
                _, hook, number, pc, params, length, target, since = t
                threads.append((1, hook, max(number - base, 0), pc, params, length, max(target - base, 0), age(since)))
            else:
                kind, hook, number, params, start, calls, covered, passed = t
                own = (age(start), calls - base, max(covered - bytes_, 0)) if kind == "own" else ()
                threads.append((2, hook, max(number - base, 0), params, own, passed - s[SYNCED]))
        if not self.one:
            threads.sort(key=repr)
        after = s[STAGED_AFTER]
        return (
            now if self.absolute else 0, values, s[CALLS] - base, s[POSITION] - bytes_, s[MARK] - bytes_,
            max(s[FILED] - bytes_, 0), after if after < 0 else max(after - base, 0),
            max(s[ACKNOWLEDGED] - base, 0), pending, bg,
            s[LATENCY] if "sync.latency" in self.reads else 0,
            s[COUNT] if "notify.count" in self.reads else 0, missed,
            age(s[REQUEST]) if s[REQUEST] is not None and self.timed else s[REQUEST] is not None,
            tuple(threads), s[NEWEST], tuple((p - bytes_, age(t)) for p, t in s[STAGED]),
            age(s[LANDED]) if self.timed else 0, s[WRITES],
        )  # fmt: skip

    def look(self, s, key):
        """A crash at this instant."""
        lost = [p for p in s[PENDING] if p[2]]
        if not lost:
            return
        found, newest = self.found, s[NEWEST]
        self.worst("power", found.power, newest, len(lost), key)
        process = [p for p in lost if p[1] > s[FILED]]
        self.worst("process", found.process, newest, len(process), key)
        age = s[NOW] - min(p[3] for p in lost)
        if age > found.power_age:
            found.power_age = age
            found.runs["power_age"] = key
        if process:
            age = s[NOW] - min(p[3] for p in process)
            if age > found.process_age:
                found.process_age = age
                found.runs["process_age"] = key

    def worst(self, name, by_params, params, count, key):
        if count > by_params.get(params, 0):
            by_params[params] = count
            self.found.runs[name, params] = key

    def run_to(self, key):
        """The steps that lead to a state."""
        labels = []
        while key is not None:
            key, label = self.parents[key]
            labels.append(label)
        return [label for label in reversed(labels) if label]

    # ---- steps ----

    def successors(self, s):
        threads = s[THREADS]
        busy = any(t is not None for t in threads)
        room = s[CALLS] - s[DURABLE] < self.room
        if not room:
            self.found.cut = True
        for i, thread in enumerate(threads):
            if thread is None:
                if self.one and i > 0:
                    # A call of another thread that overlaps passes.
                    if threads[0] is not None and room:
                        yield from self.overlaps(s, i)
                    continue
                if self.one and any(threads[1:]):
                    continue
                if s[WRITES] < self.bounds.writes:
                    yield from self.write(s, i)
                if room:
                    for hook in self.syncs:
                        yield from self.sync_call(s, i, hook)
            elif thread[0] == "wait":
                if thread[6] <= s[DURABLE]:
                    for after in self.resume(s, i):
                        yield f"thread {i} goes on", after
            elif thread[0] == "queue":
                if not any(t is not None and t[0] == "own" for t in threads):
                    yield f"thread {i} starts its own sync", self.own(s, i, thread)
            elif s[BACKGROUND] is None:
                yield f"own sync of thread {i} ends", self.own_ends(s, i, thread)
        yield from self.background(s, busy)
        for delta in self.steps:
            if self.may_pass(s, delta):
                after = s[:]
                after[NOW] += delta
                yield f"{delta} ns pass", after

    def may_pass(self, s, delta):
        """Whether so much time can pass before a sync ends."""
        oldest = self.oldest(s)
        if oldest is not None and s[NOW] - oldest > self.old:
            self.found.cut = True
            return False
        if not self.timed:
            return True
        then = s[NOW] + delta
        bg = s[BACKGROUND]
        if bg is not None and then > bg[3] + self.assume:
            return False
        wanted = self.wanted(s)
        if bg is None and wanted is not None and then > wanted + self.assume:
            return False
        own = [t for t in s[THREADS] if t is not None and t[0] == "own"]
        return all(then <= t[4] + self.assume for t in own)

    def wanted(self, s):
        """Since when a background sync is wanted that is not out."""
        since = [t[7] for t in s[THREADS] if t is not None and t[0] == "wait" and t[6] > s[DURABLE]]
        if self.flush:
            oldest = self.oldest(s)
            if oldest is not None:
                since.append(oldest + self.flush - min(self.flush, 2 * self.assume))
        if s[REQUEST] is not None:
            since.append(s[REQUEST] + PACE)
        return max(min(since), s[LANDED]) if since else None

    def oldest(self, s):
        times = [p[3] for p in s[PENDING] if p[2]] + [t for _, t in s[STAGED]]
        return min(times, default=None)

    def write(self, s, i):
        code = self.code.get("write")
        for length in self.lens:
            if code is None:
                after = s[:]
                after[POSITION] += length
                after[FILED] = after[POSITION]
                after[WRITES] += 1
                yield f"thread {i} writes {length}", after
                continue
            for params in self.params:
                for after in self.program(s, i, "write", s[CALLS] + 1, 0, params, length):
                    yield f"thread {i} writes {length} {params}", after
        if code is not None:
            # The program runs, and the call then writes nothing.
            for params in self.params:
                for after in self.program(s, i, "write", s[CALLS] + 1, 0, params, 0):
                    yield f"thread {i} writes nothing {params}", after

    def begin(self, s):
        """A sync call begins. Whether nothing was written since the last one."""
        after = s[:]
        after[CALLS] += 1
        barrier = s[POSITION] == s[MARK]
        after[MARK] = s[POSITION]
        after[WRITES] = 0
        if s[POSITION] > s[COVERED]:
            after[PENDING] = s[PENDING] + ((after[CALLS], s[POSITION], 0, 0),)
        return after, barrier

    def sync_call(self, s, i, hook):
        after, barrier = self.begin(s)
        number = after[CALLS]
        if hook not in self.code or barrier or s[MISSED] > s[SYNCED]:
            yield f"thread {i} {hook} #{number} runs its own sync", self.pass_(after, i, hook, number, self.params[0])
            return
        oldest = self.oldest(s)
        if self.flush and oldest is not None and s[NOW] - oldest > self.flush:
            self.set_thread(after, i, ("wait", hook, number, 0, None, 0, s[ACKNOWLEDGED], s[NOW]))
            yield f"thread {i} {hook} #{number} finds the deadline broken", after
            return
        for params in self.params:
            for state in self.program(after, i, hook, number, 0, params, 0):
                yield f"thread {i} {hook} #{number} {params}", state

    def overlaps(self, s, i):
        """`callers one`: another thread calls while one is inside."""
        if s[WRITES] < self.bounds.writes:
            after = s[:]
            after[POSITION] += 1
            after[FILED] = after[POSITION]
            after[WRITES] += 1
            if "write" in self.code:
                after[MISSED] += 1
                # It proves nothing of what is staged, and counts as if it were.
                after[STAGED_AFTER] = min(s[STAGED_AFTER], s[CALLS]) if s[STAGED_AFTER] >= 0 else s[CALLS] if self.stages else -1
            yield "another thread writes", after
        after, _ = self.begin(s)
        yield "another thread syncs", self.pass_(after, i, "fdatasync", after[CALLS], self.params[0])

    def background(self, s, busy):
        bg = s[BACKGROUND]
        if bg is None:
            if any(t is not None and t[0] == "own" for t in s[THREADS]):
                return
            # The engine, or another file of the application that is synced: whatever is acknowledged is
            # made durable first. A wait without a sync under way starts one.
            waits = any(t is not None and t[0] == "wait" and t[6] > s[DURABLE] for t in s[THREADS])
            wanted = s[ACKNOWLEDGED] > s[DURABLE] or s[FILED] < s[POSITION] or waits or s[REQUEST] is not None
            if wanted:
                yield "a background sync begins", self.start(s, False)
            elif self.policy["notify"] and s[POSITION] > s[COVERED]:
                yield "a sync of another process begins", self.start(s, True)
            return
        after = s[:]
        self.ended(after, bg[1], bg[2])
        after[BACKGROUND] = None
        after[LANDED] = s[NOW]
        if not bg[4]:
            after[LATENCY] = s[NOW] - bg[0]
        # A sync that fails instead stops the log: nothing more is acknowledged, so no more is lost.
        yield "it ends", after

    def start(self, s, external):
        after = s[:]
        wanted = s[NOW]
        if self.timed:
            since = self.wanted(s)
            wanted = s[NOW] if since is None else min(s[NOW], since)
        after[BACKGROUND] = (s[NOW], s[CALLS], s[POSITION], wanted, external)
        if not external:
            after[FILED] = s[POSITION]
            after[REQUEST] = None
        return after

    def ended(self, after, calls, covered):
        """A sync of these calls and bytes has succeeded."""
        after[DURABLE] = max(after[DURABLE], calls)
        covered = max(after[COVERED], covered)
        after[COVERED] = covered
        after[FILED] = max(after[FILED], covered)
        after[PENDING] = tuple(p for p in after[PENDING] if p[1] > covered)
        after[STAGED] = tuple(p for p in after[STAGED] if p[0] > covered)
        after[COUNT] += 1

    def set_thread(self, state, i, thread):
        state[THREADS] = state[THREADS][:i] + (thread,) + state[THREADS][i + 1 :]

    # ---- a call's own sync ----

    def pass_(self, s, i, hook, number, params):
        """The call makes its own sync, now or when that of another thread is over."""
        after = s[:]
        thread = ("queue", hook, number, params, s[NOW], 0, 0, s[MISSED])
        if any(t is not None and t[0] == "own" for t in s[THREADS]):
            self.set_thread(after, i, thread)
            return after
        return self.own(after, i, thread)

    def own(self, s, i, thread):
        after = s[:]
        after[FILED] = s[POSITION]
        after[REQUEST] = None
        kind, hook, number, params, _, _, _, passed = thread
        self.set_thread(after, i, ("own", hook, number, params, s[NOW], s[CALLS], s[POSITION], passed))
        return after

    def own_ends(self, s, i, thread):
        _, _, number, params, start, calls, covered, passed = thread
        after = s[:]
        self.ended(after, calls, covered)
        after[LATENCY] = s[NOW] - start
        after[SYNCED] = max(s[SYNCED], passed)
        self.set_thread(after, i, None)
        self.acknowledged(after, number, params)
        return after

    # ---- the policy's program ----

    def resume(self, s, i):
        _, hook, number, pc, params, length, _, _ = s[THREADS][i]
        after = s[:]
        self.set_thread(after, i, None)
        choices = self.params if params is None else (params,)
        for chosen in choices:
            yield from self.program(after, i, hook, number, pc, chosen, length)

    def readings(self, s, hook, number, length, child):
        oldest = self.oldest(s)
        up_to = number if hook != "write" else number - 1
        after = s[STAGED_AFTER]
        return (
            max(number - 1 - s[DURABLE], 0),
            s[POSITION] - s[COVERED],
            s[NOW] - oldest if oldest is not None else 0,
            max(up_to - max(after, s[DURABLE]), 0) if after >= 0 else 0,
            s[LATENCY],
            s[COVERED] >= s[POSITION],
            s[COUNT],
            child,
            length if hook == "write" else 0,
            s[NOW],
        )

    def program(self, s, i, hook, number, pc, params, length):
        """Runs to the next wait or to the end; every state that this can lead to."""
        code = self.code[hook]
        for child in (False, True) if "child.active" in code.reads else (False,):
            context = self.readings(s, hook, number, length, child)
            values = list(s[VARS])
            at, requests = pc, False
            while True:
                step = code.code[at]
                name = step[0]
                at += 1
                if name == "set":
                    values[step[1]] = int(step[2](values, context, params))
                elif name == "unless":
                    if not step[1](values, context, params):
                        at = step[2]
                elif name == "jump":
                    at = step[1]
                elif name == "tick":
                    values[step[1]] += 1
                    if values[step[1]] < step[2]:
                        at = step[3]
                    else:
                        values[step[1]] = 0
                elif name == "since":
                    now = context[9]
                    if (now - values[step[1]]) & MASK >= step[2]:
                        values[step[1]] = now
                    else:
                        at = step[3]
                elif name == "commit":
                    requests = True
                elif name == "await":
                    distance = step[1](values, context, params)
                    # A write waits for calls before it.
                    distance = distance if hook != "write" else max(distance, 1)
                    after = self.with_values(s, values, requests)
                    target = max(number - distance, 0)
                    if target <= s[DURABLE]:
                        if self.bounds.threads > 1 and "write" not in self.code and s[WRITES] < self.bounds.writes:
                            # Another thread writes: no lock keeps it from being counted.
                            other = after[:]
                            other[POSITION] += 1
                            other[FILED] = other[POSITION]
                            other[WRITES] += 1
                            yield from self.program(other, i, hook, number, at, params, length)
                        yield from self.program(after, i, hook, number, at, params, length)
                    else:
                        self.set_thread(after, i, ("wait", hook, number, at, params, length, target, s[NOW]))
                        yield after
                    break
                else:
                    after = self.with_values(s, values, requests)
                    yield self.verdict(after, i, hook, number, params, length, step[1], child)
                    break

    def with_values(self, s, values, requests):
        after = s[:]
        after[VARS] = tuple(values)
        if requests and s[REQUEST] is None:
            after[REQUEST] = s[NOW]
        return after

    def verdict(self, after, i, hook, number, params, length, verdict, child):
        if hook == "write":
            self.put(after, length, verdict, child)
            return after
        if verdict == "pass":
            return self.pass_(after, i, hook, number, params)
        if verdict == "fail":
            after[PENDING] = tuple(p for p in after[PENDING] if p[0] != number)
            return after
        if verdict == "defer" and after[REQUEST] is None:
            after[REQUEST] = after[NOW]
        now = after[NOW]
        after[PENDING] = tuple((n, m, 1, now) if n == number else (n, m, a, t) for n, m, a, t in after[PENDING])
        after[ACKNOWLEDGED] = max(after[ACKNOWLEDGED], number)
        self.acknowledged(after, number, params)
        return after

    def acknowledged(self, after, number, params):
        """What a guarantee allows is counted for the parameters of the newest acknowledged call."""
        if all(p[0] <= number or not p[2] for p in after[PENDING]):
            after[NEWEST] = params

    def put(self, after, length, verdict, child):
        """A write, as the policy has decided; one of no bytes can never be staged."""
        if verdict == "fail":
            return
        if length:
            after[WRITES] += 1
        before = after[STAGED_AFTER]
        after[POSITION] += length
        if verdict != "stage":
            after[STAGED_AFTER] = -1
            after[FILED] = after[POSITION]
            return
        after[STAGED_AFTER] = min(before, after[CALLS]) if before >= 0 else after[CALLS]
        oldest = self.oldest(after)
        late = self.flush and oldest is not None and after[NOW] - oldest > self.flush
        if not length or child or late:
            after[FILED] = after[POSITION]
        elif self.clock:
            after[STAGED] += ((after[POSITION], after[NOW]),)
