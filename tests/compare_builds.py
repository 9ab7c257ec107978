"""Compares builds of durac: requests a second of a real Redis under policies of each, in interleaved rounds.

    python3 tests/compare_builds.py [--clients N] [--pipeline N] [--requests N] [--rounds N] [--to MODE] NAME=FOLDER:POLICY…

FOLDER has `durac` and its agent (target/release); POLICY is what `durac run` takes. NAME=synced:N is `appendfsync no`,
while another process syncs the log N times a second: the least that so many syncs cost. Prints for each the median of
its ratios to `appendfsync MODE` (`always`) without durac in the same round, the least and the most of them, and the
processor time of the server for a request.
"""
import argparse
import contextlib
import glob
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, *words):
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def processor_time(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(args, port, requests):
    command = ["redis-benchmark", "-p", str(port), "-t", "set", "-c", str(args.clients), "-P", str(args.pipeline)]
    command += ["-n", str(requests), "-r", "100000000", "--csv"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out.strip().splitlines()[-1].split(",")[1].strip('"'))


def sync(folder, rate):
    """Syncs the log so many times a second, until it is killed."""
    (log,) = glob.glob(os.path.join(folder, "appendonlydir", "*.incr.aof"))
    fd = os.open(log, os.O_WRONLY)
    due = time.monotonic()
    while True:
        os.fdatasync(fd)
        due += 1 / rate
        time.sleep(max(due - time.monotonic(), 0))


@contextlib.contextmanager
def synced(folder, rate):
    """While another process syncs the log so many times a second, if any."""
    if not rate:
        yield
        return
    with subprocess.Popen([sys.executable, __file__, "--sync", folder, str(rate)]) as syncer:
        try:
            yield
            if syncer.poll() is not None:
                raise SystemExit("the process that syncs has ended")
        finally:
            syncer.kill()


def measure(args, mode, build):
    """Requests a second, and microseconds of the server for each."""
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", mode]
        rate = None
        if build and build.startswith("synced:"):
            rate = int(build.removeprefix("synced:"))
        elif build:
            place, policy = build.split(":", 1)
            command = [os.path.join(place, "durac"), "run", "--log", "quiet", policy, "--", *command]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                while "PONG" not in ask(port, "ping"):
                    if server.poll() is not None:
                        raise SystemExit(f"the server ended: {' '.join(command)}")
                words = ask(port, "info", "server").split()
                pid = next(word.split(":")[1] for word in words if word.startswith("process_id:"))
                load(args, port, max(args.requests // 20, 1))
                before = processor_time(pid)
                with synced(folder, rate):
                    done = load(args, port, args.requests)
                return done, (processor_time(pid) - before) * 1e6 / args.requests
            finally:
                ask(port, "shutdown", "nosave")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--requests", type=int, default=30000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--dir", help="where the logs are")
    parser.add_argument("--to", default="always", metavar="MODE", help="the mode of Redis that ratios are to")
    parser.add_argument("builds", nargs="+", metavar="NAME=FOLDER:POLICY")
    args = parser.parse_args()
    modes = [(args.to, args.to, None)]
    for build in args.builds:
        name, what = build.split("=", 1)
        modes.append((name, "no" if what.startswith("synced:") else "always", what))
    rows = {name: [] for name, _, _ in modes}
    for number in range(args.rounds):
        order = modes[:]
        random.Random(number).shuffle(order)
        for name, mode, build in order:
            rows[name].append(measure(args, mode, build))
    print(f"-c {args.clients} -P {args.pipeline}, {args.requests} requests, {args.rounds} rounds")
    for name, _, _ in modes:
        ratios = [rate / base for (rate, _), (base, _) in zip(rows[name], rows[args.to])]
        rate, cpu = (statistics.median(values) for values in zip(*rows[name]))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:<28} {rate:>9.0f}/s  {statistics.median(ratios):.3f} ({spread})  {cpu:.1f} us a request")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sync"]:
        sync(sys.argv[2], int(sys.argv[3]))
    else:
        main()
