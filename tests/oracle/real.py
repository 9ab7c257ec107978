#!/usr/bin/env python3
"""Runs random policies with the real agent, and holds what was at risk against what durac proves.

    python3 tests/oracle/real.py --built target/debug --libraries DIR --count 200

`durac-append-log` writes and syncs a log under each policy whose bound is finite. Around the agent are the
two libraries of tests/shims/shim.c (`libouter.so`, `libinner.so` in DIR): the outer one knows which calls
were acknowledged, the inner one which a successful sync covers, and delays syncs. The most that was
acknowledged and not durable at one moment must not exceed the bound; at the end, all must be durable.
Prints each policy that breaks its bound; the exit code is then 1.
"""

import argparse
import collections
import json
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile

import compare
import generate
from language import Printer

SCRIPT = 'export LD_PRELOAD="$1${LD_PRELOAD:+:$LD_PRELOAD}:$2"; shift 2; exec "$@"'
# As tests/shims/shim.c lays them out.
SLOTS, WORDS = 512, 10
ENTERED, ACKNOWLEDGED, REFUSED, DURABLE, MAX_PENDING = 2, 3, 4, 5, 6
# Larger bounds are seldom reached by so short a run.
MOST = 64


def bound(options, path, made):
    """Compiles a policy; the bound that its object states for the default parameters, None if it is not finite."""
    ended = compare.limited([options.durac, "compile", path, "-o", made], options.seconds)
    if ended.returncode not in (0, -signal.SIGPROF):
        raise RuntimeError(f"{path}: {ended.stderr}")
    if ended.returncode != 0:
        return None
    with open(made, "rb") as file:
        content = file.read().decode("latin-1")
    note, _ = json.JSONDecoder().raw_decode(content, content.index('{"abi":'))
    syncs = next(loss["syncs"] for loss in note["loss"] if loss["failure"] == "power_loss")
    return syncs if syncs is not None and syncs <= MOST else None


def run(options, seed, made, folder):
    """The witness's words of the log."""
    witness = os.path.join(folder, "witness")
    with open(witness, "wb") as file:
        file.truncate(SLOTS * WORDS * 8)
    chance = random.Random(seed)
    env = dict(os.environ, DURAC_TEST_WITNESS=witness, DURAC_NOTIFY="off", NO_COLOR="1")
    env["DURAC_TEST_BY_BYTES"] = "1"
    env["DURAC_TEST_SYNC_US"] = str(chance.choice([200, 600, 1500]))
    env["DURAC_TEST_PAUSE_US"] = str(chance.choice([0, 100, 800]))
    if options.fault:
        env |= {"DURAC_AGENT": os.path.join(options.built, "libdurac_faulty_preload.so"), "DURAC_FAULT": options.fault}
    libraries = [os.path.join(options.libraries, name) for name in ("libouter.so", "libinner.so")]
    command = [options.durac, "run", made, "--", "sh", "-c", SCRIPT, "sh", *libraries]
    command += [os.path.join(options.built, "durac-append-log"), folder]
    command += ["--records", str(options.records), "--size", str(chance.choice([1, 3, 8, 100]))]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"seed {seed}: exit code {ended.returncode}: {ended.stderr}")
    with open(witness, "rb") as file:
        words = struct.unpack(f"={SLOTS * WORDS}Q", file.read())
    slots = [words[i : i + WORDS] for i in range(0, len(words), WORDS)]
    logs = [slot for slot in slots if slot[1]]
    if len(logs) != 1 or logs[0][ENTERED] < options.records:
        raise RuntimeError(f"seed {seed}: the witness saw {logs}: {ended.stderr}")
    return logs[0]


def judge(job):
    """What a policy's run has shown: a word for the statistics, a report if it breaks the bound."""
    seed, options = job
    text = Printer(generate.policy(seed, real=True)).text([])
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="durac-oracle-") as place,
        tempfile.TemporaryDirectory(prefix="durac-oracle-", dir=memory) as folder,
    ):
        path, made = os.path.join(place, "policy.dur"), os.path.join(place, "policy.o")
        with open(path, "w") as file:
            file.write(text)
        most = bound(options, path, made)
        if most is None:
            return "without a bound", None
        log = run(options, seed, made, folder)
    if log[REFUSED]:
        raise RuntimeError(f"seed {seed}: {log[REFUSED]} calls were told failure\n{text}")
    if log[MAX_PENDING] > most:
        return "broken", f"seed {seed}: {log[MAX_PENDING]} at risk, {most} proved\n{text}"
    if log[DURABLE] < log[ACKNOWLEDGED]:
        return "broken", f"seed {seed}: at the end {log[ACKNOWLEDGED] - log[DURABLE]} are not durable\n{text}"
    return ("reached" if log[MAX_PENDING] == most else "below") + (", bound 0" if most == 0 else ""), None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", default="target/debug", help="folder of durac and the agent")
    parser.add_argument("--libraries", required=True, help="folder of libouter.so and libinner.so")
    parser.add_argument("--first", type=int, default=0, help="seed of the first policy")
    parser.add_argument("--count", type=int, default=200, help="number of policies with a bound that are run")
    parser.add_argument("--records", type=int, default=120, help="records in each run")
    parser.add_argument("--seconds", type=float, default=1.0, help="processor time of one check")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--fault", help="run the faulty agent with this DURAC_FAULT until a bound is broken")
    options = parser.parse_args()
    options.durac = os.path.join(options.built, "durac")
    seen, reports, seed = collections.Counter(), [], options.first
    with multiprocessing.Pool(options.jobs) as pool:
        while sum(seen.values()) - seen["without a bound"] < options.count:
            missing = options.count - sum(seen.values()) + seen["without a bound"]
            batch = min(max(missing, options.jobs), 8 * options.jobs if options.fault else 200)
            for word, report in pool.imap_unordered(judge, [(seed + i, options) for i in range(batch)]):
                seen[word] += 1
                if report:
                    print(report, flush=True)
                    reports.append(report)
            seed += batch
            if options.fault and reports:
                break
    print(f"seeds {options.first} to {seed - 1}: {len(reports)} broke their bounds; {dict(seen)}")
    sys.exit(1 if reports else 0)


if __name__ == "__main__":
    main()
