#!/usr/bin/env python3
"""Compares `durac check` with the explorer of this folder on random policies.

    python3 tests/oracle/compare.py --durac target/debug/durac --first 0 --count 300

For each policy the explorer finds the most that is lost in some run. Then durac checks guarantees of one
less, which it must refuse, and of exactly as much, which it should prove if the explorer has seen everything.
A guarantee that durac accepts and a run breaks is a false accept: its text and the run are printed, and the
exit code is 1. The seed of a policy is its number.
"""

import argparse
import collections
import copy
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile

import generate
import known
from explore import Bounds, Explorer
from language import Printer

CALLERS = {0: "many", 1: "one"}


class Guarantee:
    """A line of the policy: what it says, and whether a run breaks it."""

    def __init__(self, kind, text, broken, run, most):
        self.kind, self.text, self.broken, self.run, self.most = kind, text, broken, run, most


def explore(policy, options):
    """The worst of all passes; each explores again with more threads."""
    passes = [1, 2] if policy["target"]["callers"] else [2, 3]
    loss = 3 if policy["timed"] else options.loss
    results = []
    for threads in passes:
        explorer = Explorer(copy.deepcopy(policy), Bounds(options.states, loss, threads))
        results.append((explorer, explorer.explore()))
        if explorer.enough():
            break
    return results


def merged(results, name):
    worst = {}
    for explorer, found in results:
        for params, count in getattr(found, name).items():
            if count > worst.get(params, (0, None, None))[0]:
                worst[params] = (count, explorer, found.runs[name, params])
    return worst


def guarantees(policy, results):
    """One too low and one just right, for each kind of crash and for each form of a bound."""
    out = []
    for name, crash in (("power", "power_loss"), ("process", "process_crash")):
        worst = merged(results, name)
        forms = [(None, 0)] + [(i, p) for i, p in enumerate(policy["params"]) if p["unit"] == "syncs"]
        for i, param in forms:
            base = (lambda params: 0) if i is None else (lambda params, i=i: params[i])
            most = max((count - base(params) for params, (count, _, _) in worst.items()), default=0)
            for offset in (most - 1, most):
                allows = lambda params, offset=offset: max(base(params) + offset, 0)  # noqa: E731
                broken = [(c, e, key) for params, (c, e, key) in worst.items() if c > allows(params)]
                if i is None:
                    if offset < 0:
                        continue
                    bound = f"{offset} syncs"
                elif abs(offset) > 12:
                    continue
                else:
                    sign = "-" if offset < 0 else "+"
                    bound = param["name"] + (f" {sign} {abs(offset)} syncs" if offset else " syncs")
                text = f"loss <= {bound} on {crash}"
                run = max(broken, key=lambda b: b[0], default=None)
                out.append(Guarantee(name, text, bool(broken), run, most if i is None else None))
        if policy["timed"]:
            explorer, found = max(results, key=lambda r: getattr(r[1], f"{name}_age"))
            age = getattr(found, f"{name}_age")
            stated = policy["flush"] or 10**7 + 2 * policy["assume"]
            for limit in {age - 1, max(age, stated)}:
                if limit > 0:
                    run = (age, explorer, found.runs[f"{name}_age"]) if limit < age else None
                    out.append(Guarantee("age", f"loss <= {limit}ns on {crash}", limit < age, run, None))
    return out


def limited(command, seconds):
    """Runs a command with so much processor time: the timer survives the exec, and ends the program."""
    limit = lambda: signal.setitimer(signal.ITIMER_PROF, seconds)  # noqa: E731
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)


def check(durac, text, seconds):
    """Codes of errors by line, or why there are none."""
    with tempfile.NamedTemporaryFile("w", suffix=".dur") as file:
        file.write(text)
        file.flush()
        ended = limited([durac, "check", "--format", "json", file.name], seconds)
    if ended.returncode < 0:
        return None
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{ended.stderr}\n{text}")
    errors = collections.defaultdict(list)
    for diagnostic in json.loads(ended.stdout)["diagnostics"]:
        if diagnostic["severity"] != "error":
            continue
        line = next(label["start"]["line"] for label in diagnostic["labels"] if label["primary"])
        errors[line].append((diagnostic["code"], diagnostic["message"]))
    if (ended.returncode == 1) != bool(errors):
        raise RuntimeError(f"exit code {ended.returncode}, errors {dict(errors)}\n{text}")
    return errors


def judge(job):
    """One policy: its statistics, and the reports of its false accepts."""
    name, policy, options = job
    results = explore(policy, options)
    complete = all(found.complete for _, found in results)
    lines = guarantees(policy, results)
    # A period's counter is the explorer's own.
    text = Printer(policy).text([g.text for g in lines])
    stats, reports = collections.Counter(), []
    stats["complete" if complete else "cut short"] += 1
    stats["states"] += sum(found.states for _, found in results)
    errors = check(options.durac, text, options.seconds)
    if errors is None:
        stats["durac out of time"] += 1
        return stats, reports
    wrong = [e for found in errors.values() for e in found if not e[0].startswith("E05")]
    if wrong:
        stats["not a policy"] += 1
        if options.verbose:
            print(f"{name}: {wrong}\n{text}")
        return stats, reports
    at = {guarantee.text: number for number, guarantee in enumerate_lines(text)}
    for g in lines:
        codes = [code for code, _ in errors.get(at[g.text], [])]
        unit = "in time" if g.kind == "age" else f"in syncs, {g.kind}"
        if g.broken:
            stats[f"broken, {unit}: {codes[0] if codes else 'ACCEPTED'}"] += 1
            if not codes:
                count, explorer, key = g.run
                steps = "\n".join(f"    {step}" for step in explorer.run_to(key))
                lost = f"{count} ns old" if g.kind == "age" else f"{count} syncs"
                reports.append(f"{name}: false accept of `{g.text}`: lost {lost}\n{text}\nin this run:\n{steps}\n")
            claimed = re.search(r"up to (\d+)", errors[at[g.text]][0][1]) if codes else None
            if claimed and g.kind != "age" and g.most is not None and int(claimed[1]) < g.most:
                reports.append(f"{name}: says up to {claimed[1]}, loses {g.most}\n{text}\n")
        elif g.kind == "age":
            stats[f"broken in no run, {unit}: {codes[0] if codes else 'accepted'}"] += 1
        elif complete:
            stats[f"kept in every run, {unit}: {codes[0] if codes else 'accepted'}"] += 1
            if codes and options.verbose:
                message = errors[at[g.text]][0]
                print(f"{name}: `{g.text}` holds in every run explored: {message}\n{text}")
    return stats, reports


class Line:
    def __init__(self, text):
        self.text = text


def enumerate_lines(text):
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("guarantee "):
            yield number, Line(line.removeprefix("guarantee "))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--durac", default="target/debug/durac", help="the program")
    parser.add_argument("--first", type=int, default=0, help="seed of the first policy")
    parser.add_argument("--count", type=int, default=300, help="number of policies")
    parser.add_argument("--states", type=int, default=2000, help="states to explore, for each number of threads")
    parser.add_argument("--loss", type=int, default=6, help="explore no further than so many lost syncs")
    parser.add_argument("--seconds", type=float, default=1.0, help="processor time of one check")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--known", action="store_true", help="first find losses that once were missed")
    parser.add_argument("--kind", choices=generate.KINDS, help="policies of this kind only")
    parser.add_argument("--verbose", action="store_true", help="print guarantees that are refused and seem to hold")
    return parser.parse_args()


def main():
    options = arguments()
    if options.known:
        known.check(lambda policy, least: explore(policy, argparse.Namespace(states=15000, loss=least)))
    seeds = range(options.first, options.first + options.count)
    policies = ((n, generate.policy(n)) for n in seeds)
    jobs = ((f"seed {n}", p, options) for n, p in policies if options.kind in (None, p["kind"]))
    total, reports = collections.Counter(), []
    with multiprocessing.Pool(options.jobs) as pool:
        for done, (stats, found) in enumerate(pool.imap_unordered(judge, jobs, chunksize=4), 1):
            total.update(stats)
            for report in found:
                print(report, flush=True)
            reports += found
            if done % 100 == 0 and sys.stderr.isatty():
                print(f"{done} of {options.count}, {len(reports)} false accepts", file=sys.stderr)
    last = options.first + options.count - 1
    print(f"seeds {options.first} to {last}: {len(reports)} false accepts")
    for key in sorted(total):
        print(f"{total[key]:>9} {key}")
    accepted = sum(total[key] for key in total if key.startswith("kept") and key.endswith("accepted"))
    refused = sum(total[key] for key in total if key.startswith("broken") and not key.endswith("ACCEPTED"))
    if options.count >= 40 and (accepted < options.count // 4 or refused < options.count // 4):
        sys.exit(f"too little is compared: {accepted} accepted, {refused} refused")
    sys.exit(1 if reports else 0)


if __name__ == "__main__":
    main()
