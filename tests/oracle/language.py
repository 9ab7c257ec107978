"""Policies as trees, and what a tree means: its text, and flat code that the explorer steps through.

The meaning is that of docs/language.md. Nothing here reads a policy's text: the generator makes the tree,
and the text is printed from it, so the compiler under test has the only parser.

Expressions
    ["num", value, unit]   ["param", i]   ["state", i]   ["read", name]   ["bin", op, a, b]   ["not", a]
Statements
    ["verdict", name]   ["await", "previous" | "all"]   ["await", "pending", expr]   ["commit"]
    ["set", i, expr]   ["if", cond, then, else]   ["every_calls", n, body]   ["every_time", ns, body]
"""

import sys

MASK = (1 << 64) - 1

# What a program reads, in the order of the tuple that the explorer fills in.
READINGS = {
    "pending": "syncs",
    "pending.bytes": "bytes",
    "pending.age": "duration",
    "staged": "syncs",
    "sync.latency": "duration",
    "notify.done": "bool",
    "notify.count": "count",
    "child.active": "bool",
    "call.len": "bytes",
    "now": "duration",
}
PLACE = {name: at for at, name in enumerate(READINGS)}

VERDICTS = {"pass", "defer", "skip", "stage", "fail"}


def wrap(value):
    """A number as the machine keeps it: unsigned, 64 bits."""
    return value & MASK


# ---- text ----


def literal(value, unit):
    if unit == "bool":
        return "true" if value else "false"
    if unit == "duration":
        for name, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
            if value and value % scale == 0:
                return f"{value // scale}{name}"
        return f"{value}ns"
    if unit == "bytes":
        return f"{value}B"
    return str(value)


class Printer:
    """The text of a tree."""

    def __init__(self, policy):
        self.policy = policy

    def expr(self, e):
        kind = e[0]
        if kind == "num":
            return literal(e[1], e[2])
        if kind == "param":
            return self.policy["params"][e[1]]["name"]
        if kind == "state":
            return self.policy["states"][e[1]]["name"]
        if kind == "read":
            return e[1]
        if kind == "not":
            return f"!({self.expr(e[1])})"
        return f"({self.expr(e[2])} {e[1]} {self.expr(e[3])})"

    def stmts(self, stmts, indent):
        return "".join(self.stmt(stmt, "    " * indent, indent) for stmt in stmts)

    def stmt(self, stmt, pad, indent):
        kind = stmt[0]
        if kind == "verdict":
            return f"{pad}{'fail EIO' if stmt[1] == 'fail' else stmt[1]}\n"
        if kind == "await":
            what = f"pending < {self.expr(stmt[2])}" if stmt[1] == "pending" else stmt[1]
            return f"{pad}await {what}\n"
        if kind == "commit":
            return f"{pad}commit\n"
        if kind == "set":
            return f"{pad}{self.policy['states'][stmt[1]]['name']} = {self.expr(stmt[2])}\n"
        if kind == "if":
            text = f"{pad}if {self.expr(stmt[1])} {{\n{self.stmts(stmt[2], indent + 1)}{pad}}}"
            if stmt[3]:
                text += f" else {{\n{self.stmts(stmt[3], indent + 1)}{pad}}}"
            return text + "\n"
        period = f"{stmt[1]} calls" if kind == "every_calls" else literal(stmt[1], "duration")
        return f"{pad}every {period} {{\n{self.stmts(stmt[2], indent + 1)}{pad}}}\n"

    def text(self, guarantees):
        p = self.policy
        out = [target_text(p["target"]), f"policy {p['name']}\ntarget {p['target']['name']}\n"]
        if p["notify"]:
            out.append("use kernel notify\n")
        for param in p["params"]:
            unit = param["unit"]
            low, high = literal(param["low"], unit), literal(param["high"], unit)
            default = literal(param["default"], unit)
            bounds = "" if unit == "bool" else f" in {low}..={high}"
            out.append(f"param {param['name']}: {unit} = {default}{bounds}\n")
        for state in p["states"]:
            if not state["name"].startswith("."):
                initial = literal(state["initial"], state["unit"])
                out.append(f"state {state['name']}: {state['unit']} = {initial}\n")
        if p["assume"]:
            out.append(f"assume sync <= {literal(p['assume'], 'duration')}\n")
        out.extend(f"guarantee {guarantee}\n" for guarantee in guarantees)
        for hook, body in p["hooks"].items():
            out.append(f"on {hook} {{\n{self.stmts(body, 1)}}}\n")
        if p["flush"]:
            out.append(f"flush within {literal(p['flush'], 'duration')}\n")
        return "".join(out)


def target_text(target):
    """The text of a target of the generator's own; nothing for one that durac has."""
    if not target["own"]:
        return ""
    parameters = {
        "write": "(log: file, data: borrowed bytes, len: bytes) -> bytes",
        "fdatasync": "(log: file) -> status",
        "fsync": "(log: file) -> status",
    }
    may = {"write": "pass, stage, commit, fail, await"}
    out = [f"target {target['name']} {{\n    files \"*.log\"\n"]
    out.append(f"    callers {'one' if target['callers'] == 1 else 'many'}\n")
    for hook, signature in parameters.items():
        calls = '"write", "writev"' if hook == "write" else f'"{hook}"'
        allowed = may.get(hook, "pass, defer, skip, commit, fail, await")
        out.append(f"    hook {hook}{signature} {{\n        entry libc {calls}\n")
        out.append(f"        may {allowed}\n    }}\n")
    return "".join(out) + "}\n"


# ---- meaning ----


def source(e):
    """An expression as Python, of state `v`, readings `c` and parameters `p`."""
    kind = e[0]
    if kind == "num":
        return str(e[1])
    if kind in ("param", "state"):
        return f"{'p' if kind == 'param' else 'v'}[{e[1]}]"
    if kind == "read":
        return f"c[{PLACE[e[1]]}]"
    if kind == "not":
        return f"(not {source(e[1])})"
    op, a, b = e[1], source(e[2]), source(e[3])
    if op in ("&&", "||"):
        return f"({a} {'and' if op == '&&' else 'or'} {b})"
    if op in ("==", "!=", "<", "<=", ">", ">="):
        if unit_of_bool(e[2]) or unit_of_bool(e[3]):
            return f"(bool({a}) {op} bool({b}))"
        return f"({a} {op} {b})"
    if op == "-":
        # A difference below zero is zero.
        return f"max({a} - {b}, 0)"
    if op in ("/", "%"):
        return f"({a} {'//' if op == '/' else '%'} {b})"
    return f"(({a} {op} {b}) & {MASK})"


def unit_of_bool(e):
    return e[0] == "not" or (e[0] == "bin" and e[1] in ("&&", "||", "==", "!=", "<", "<=", ">", ">="))


def function(e, as_bool=False):
    text = source(e)
    return eval(f"lambda v, c, p: {'bool(' + text + ')' if as_bool else text}")  # the tree is ours


class Code:
    """A hook as a list of instructions, and which readings it takes.

    ("set", i, f)   ("unless", f, pc)   ("jump", pc)   ("await", f)   ("commit",)   ("end", verdict)
    ("tick", i, period, pc): the counter of `every n calls`   ("since", i, period, pc): of `every 1s`
    """

    def __init__(self, policy, body):
        self.policy = policy
        self.code = []
        self.reads = set()
        self.stmts(body)
        self.code.append(("end", "pass"))

    def expr(self, e, as_bool=False):
        self.reads |= set(readings(e))
        return function(e, as_bool)

    def stmts(self, stmts):
        for stmt in stmts:
            self.stmt(stmt)

    def stmt(self, stmt):
        kind, code = stmt[0], self.code
        if kind == "verdict":
            code.append(("end", stmt[1]))
        elif kind == "await":
            distance = {"previous": ["num", 1, "syncs"], "all": ["num", 0, "syncs"]}
            code.append(("await", self.expr(distance[stmt[1]] if len(stmt) == 2 else stmt[2])))
        elif kind == "commit":
            code.append(("commit",))
        elif kind == "set":
            unit = self.policy["states"][stmt[1]]["unit"]
            code.append(("set", stmt[1], self.expr(stmt[2], unit == "bool")))
        elif kind == "if":
            branch = len(code)
            code.append(None)
            cond = self.expr(stmt[1])
            self.stmts(stmt[2])
            jump = len(code)
            code.append(None)
            code[branch] = ("unless", cond, len(code))
            self.stmts(stmt[3])
            code[jump] = ("jump", len(code))
        else:
            states = self.policy["states"]
            hidden = len(states)
            states.append({"name": f".{kind}{hidden}", "unit": "count", "initial": 0, "period": stmt[1]})
            branch = len(code)
            code.append(None)
            self.stmts(stmt[2])
            name = "tick" if kind == "every_calls" else "since"
            if name == "since":
                self.reads.add("now")
            code[branch] = (name, hidden, stmt[1], len(code))


def readings(e):
    if e[0] == "read":
        yield e[1]
    for part in e[1:]:
        if isinstance(part, list):
            yield from readings(part)


def all_exprs(stmts):
    for stmt in stmts:
        for part in stmt[1:]:
            if isinstance(part, list) and part:
                if isinstance(part[0], list):
                    yield from all_exprs(part)
                else:
                    yield part


def numbers(e):
    if e[0] == "num":
        yield e
    for part in e[1:]:
        if isinstance(part, list):
            yield from numbers(part)


def uses_clock(policy):
    """Whether a program reads the clock itself, not only how much time has passed."""
    return any("now" in readings(e) for body in policy["hooks"].values() for e in all_exprs(body))


if __name__ == "__main__":
    sys.exit("a module of compare.py")
