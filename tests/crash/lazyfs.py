#!/usr/bin/env python3
"""A second opinion on the crash test: cuts the power of a Redis whose data is on LazyFS.

LazyFS (https://github.com/dsrhaslab/lazyfs) is a file system of others that drops what was not synced. It is
not part of durac and must be built first; docs/crash-report.md says how.

    python3 tests/crash/lazyfs.py --lazyfs PATH/lazyfs/build/lazyfs --durac target/release/durac \\
        --cuts 30 always delayed_fsync window:n=4 window:n=64 batch

One client writes key after key and notes each reply. At a random moment Redis is stopped (SIGSTOP) and the
power is cut, in turn in two ways:

    drop   once no call of Redis is under way, LazyFS drops what is not synced (its `clear-cache`)
    kill   LazyFS is killed at once, in the middle of whatever it does (as its `crash` does); what it had not
           synced was in its memory only

Then a Redis without durac is started on what is left. With one client and no pipelining, each sync covers one
command, so the number of lost keys is the number of lost syncs, which `durac check` bounds. Of a policy that
holds replies, no acknowledged key may be lost.

Needs root, FUSE 3, and redis-server. Prints one line for each policy and way. A cut that fails is told, does
not end the campaign, and leaves its folder with every log and the files under --keep. Exit code 1 if a bound was
exceeded or a cut failed.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

LONG = 60.0
WAYS = ("drop", "kill")


class Failed(Exception):
    """A cut that shows nothing, or something bad."""


def wait(what, done, seconds=LONG):
    """Polls until `done` returns something true, and returns that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = done()
        if found:
            return found
        time.sleep(0.005)
    raise Failed(f"{what}: nothing after {seconds:.0f} s")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Redis:
    """A server and a connection to it."""

    def __init__(self, prefix, data, log):
        for _ in range(5):
            port = free_port()
            with open(log, "w", encoding="utf-8") as out:
                self.process = subprocess.Popen(
                    prefix + ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", data,
                              "--save", "", "--appendonly", "yes", "--appendfsync", "always"],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                )
            try:
                self.client = wait("Redis", lambda port=port: self.connect(port))
                return
            except Failed as error:
                self.end()
                with open(log, encoding="utf-8") as f:
                    text = f.read()
                # Somebody else has taken the port meanwhile.
                if "Address already in use" not in text:
                    name = os.path.basename(log)
                    raise Failed(f"{name}: {error}: {(text.splitlines() or ['no line'])[-1]}") from None
        raise Failed("no free port")

    def connect(self, port):
        if self.process.poll() is not None:
            raise Failed(f"Redis has ended with {self.process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=LONG) as s:
                s.sendall(b"INFO server\r\nPING\r\nQUIT\r\n")
                text = b"".join(iter(lambda: s.recv(4096), b""))
            # Ours, and not loading any more.
            if b"\r\nprocess_id:%d\r\n" % self.process.pid in text and b"+PONG" in text:
                return socket.create_connection(("127.0.0.1", port), timeout=LONG)
        except OSError:
            # It does not listen yet, or ends.
            pass
        return None

    def call(self, command):
        self.client.sendall(command.encode() + b"\r\n")
        return self.client.recv(64).decode()

    def has_stopped(self):
        """Whether every thread is stopped, so that no system call of the process is under way."""
        tasks = f"/proc/{self.process.pid}/task"
        states = []
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat", encoding="utf-8") as f:
                states.append(f.read().rpartition(")")[2].split()[0])
        return all(state == "T" for state in states)

    def end(self):
        self.process.kill()
        self.process.wait()


def assignments(policy):
    """The name of a policy, and the arguments that set its parameters."""
    name, _, sets = policy.partition(":")
    return name, [word for a in filter(None, sets.split(",")) for word in ("--set", a)]


def bound(durac, policy):
    """Acknowledged syncs that a power loss takes at most, as durac proved it; None is any number."""
    name, sets = assignments(policy)
    with tempfile.TemporaryDirectory(prefix="durac_lazyfs_") as place:
        compiled = os.path.join(place, "p.o")
        subprocess.run([durac, "compile", name, "-o", compiled] + sets, check=True, stderr=subprocess.DEVNULL)
        with open(compiled, "rb") as f:
            text = f.read().decode("latin-1")
    # The note of the object is JSON (docs/architecture.md).
    note, _ = json.JSONDecoder().raw_decode(text, text.index('{"abi":'))
    if note.get("holds_replies"):
        return 0
    for loss in note["loss"]:
        if loss["failure"] == "power_loss":
            return loss["syncs"]
    raise SystemExit(f"lazyfs.py: no bound in the object of {policy}")


class Lazy:
    """A mounted LazyFS."""

    def __init__(self, program, place):
        self.mount = os.path.join(place, "mount")
        self.root = os.path.join(place, "root")
        self.faults = os.path.join(place, "faults")
        finished = os.path.join(place, "finished")
        log = os.path.join(place, "lazyfs.log")
        os.mkdir(self.mount)
        os.mkdir(self.root)
        os.mkfifo(finished)
        # LazyFS opens it for writing, and reads no command before somebody has it open for reading.
        self.finished = os.open(finished, os.O_RDONLY | os.O_NONBLOCK)
        with open(os.path.join(place, "config.toml"), "w", encoding="utf-8") as f:
            f.write(
                f'[faults]\nfifo_path="{self.faults}"\nfifo_path_completed="{finished}"\n'
                '[cache]\napply_eviction=false\n[cache.simple]\ncustom_size="256mb"\nblocks_per_page=1\n'
                f'[filesystem]\nlog_all_operations=false\nlogfile="{log}"\n'
            )
        with open(os.path.join(place, "lazyfs.out"), "w", encoding="utf-8") as out:
            # LazyFS ignores a configuration whose path has `-o` in it, and aborts: a relative path has none.
            self.process = subprocess.Popen(
                [program, self.mount, "--config-path", "config.toml", "-o", "allow_other",
                 "-o", "modules=subdir", "-o", f"subdir={self.root}", "-f"],
                cwd=place, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )

        def ready():
            if self.process.poll() is not None:
                raise Failed(f"LazyFS has ended with {self.process.returncode}")
            if not os.path.ismount(self.mount):
                return False
            with open(log, encoding="utf-8") as f:
                return "waiting for fault commands" in f.read()

        try:
            wait("LazyFS", ready)
        except Failed:
            self.end()
            raise

    def drop_unsynced(self):
        with open(self.faults, "w", encoding="utf-8") as f:
            f.write("lazyfs::clear-cache\n")
        if not select.select([self.finished], [], [], LONG)[0]:
            raise Failed(f"LazyFS: clear-cache has not ended after {LONG:.0f} s")
        os.read(self.finished, 4096)

    def kill(self):
        """The files that are left are in the folder `root`."""
        self.process.kill()
        self.process.wait()
        self.unmount()

    def unmount(self):
        subprocess.run(["fusermount3", "-uz", self.mount], check=False, stderr=subprocess.DEVNULL)

    def end(self):
        if self.process.poll() is None:
            self.unmount()
            try:
                self.process.wait(LONG)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self.finished)


def lost_keys(redis, written):
    """How many of the last acknowledged keys are gone. What is left must be a prefix."""
    lost = 0
    while lost < written and redis.call(f"EXISTS k{written - 1 - lost}") != ":1\r\n":
        lost += 1
    # As many keys as are before the first that is missing, and perhaps the one of which nobody knows.
    left = int(redis.call("DBSIZE")[1:])
    if left not in (written - lost, written - lost + 1):
        raise Failed(f"{left} keys of {written}, {lost} lost: not a prefix")
    return lost


def cut(args, policy, way, chance, place):
    """Cuts once. Returns the number of acknowledged and of lost keys."""
    lazy = Lazy(args.lazyfs, place)
    redis = None
    try:
        name, sets = assignments(policy)
        redis = Redis([args.durac, "run", name] + sets + ["--"], lazy.mount, os.path.join(place, "redis.log"))
        written = 0
        until = time.monotonic() + chance.uniform(0.2, 0.8)
        while time.monotonic() < until:
            said = redis.call(f"SET k{written} v")
            if said != "+OK\r\n":
                raise Failed(f"Redis refuses to write: {said}")
            written += 1
        # One more, of which nobody knows whether it is acknowledged.
        redis.client.sendall(b"SET k%d v\r\n" % written)
        time.sleep(chance.uniform(0, 0.002))
        os.kill(redis.process.pid, signal.SIGSTOP)
        if way == "kill":
            lazy.kill()
        else:
            # A write that is under way would land behind what was dropped, and leave a hole.
            wait("Redis, stopping", redis.has_stopped)
            lazy.drop_unsynced()
        redis.end()
        redis.client.setblocking(False)
        try:
            written += redis.client.recv(64).startswith(b"+OK")
        except (BlockingIOError, ConnectionError):
            pass
        left = lazy.root if way == "kill" else lazy.mount
        redis = Redis([], left, os.path.join(place, "redis-after.log"))
        return written, lost_keys(redis, written)
    finally:
        if redis:
            redis.end()
        lazy.end()


def kept(args, policy, way, number, place, why):
    """Keeps the folder of a cut, and tells why."""
    os.makedirs(args.keep, exist_ok=True)
    kept = os.path.join(args.keep, f"{policy}-{way}-{number}-{os.getpid()}".replace(":", "-").replace("/", "-"))
    shutil.move(place, kept)
    print(f"lazyfs.py: {policy}, {way}, cut {number}: {why}; logs in {kept}", file=sys.stderr, flush=True)


def campaign(args, policy, way):
    """Cuts `args.cuts` times. Returns whether every cut kept the bound."""
    proved = bound(args.durac, policy)
    chance = random.Random(args.seed)
    seen, failed, exceeded = [], 0, False
    for number in range(args.cuts):
        place = tempfile.mkdtemp(prefix="durac_lazyfs_")
        try:
            written, lost = cut(args, policy, way, chance, place)
        except (Failed, OSError) as error:
            failed += 1
            kept(args, policy, way, number, place, error)
            continue
        seen.append((written, lost))
        if proved is not None and lost > proved:
            exceeded = True
            kept(args, policy, way, number, place, f"{lost} syncs lost, proved is {proved}")
        else:
            shutil.rmtree(place)
    acknowledged = sum(written for written, _ in seen)
    worst = max((lost for _, lost in seen), default=0)
    mean = sum(lost for _, lost in seen) / max(len(seen), 1)
    shown = "any" if proved is None else proved
    print(f"| {policy} | {way} | {len(seen)} | {acknowledged} | {worst} | {shown} | {mean:.1f} | {failed} |", flush=True)
    return not exceeded and failed == 0


def main():
    parser = argparse.ArgumentParser(description="crash tests of durac on LazyFS")
    parser.add_argument("--lazyfs", required=True, help="the program lazyfs")
    parser.add_argument("--durac", required=True, help="the program durac")
    parser.add_argument("--cuts", type=int, default=30, help="cuts per policy and way")
    parser.add_argument("--way", choices=WAYS, help="cut in this way only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", default="lazyfs-failed", help="folder for the logs of cuts that fail")
    parser.add_argument("policies", nargs="+", metavar="POLICY", help="a policy, with :name=value")
    args = parser.parse_args()
    args.lazyfs = os.path.abspath(args.lazyfs)
    print("| policy | cut | cuts | acknowledged | worst: syncs | proved | mean: syncs | failed cuts |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    ways = [args.way] if args.way else WAYS
    kept_bounds = [campaign(args, policy, way) for policy in args.policies for way in ways]
    return 0 if all(kept_bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
