"""Compares builds of durac: requests a second of a real Redis under policies of each, in interleaved rounds.

    python3 tests/compare_builds.py [--clients N] [--pipeline N] [--requests N] [--rounds N] NAME=FOLDER:POLICY…

FOLDER has `durac` and its agent (target/release); POLICY is what `durac run` takes. Prints for each the median of its
ratios to `appendfsync always` without durac in the same round, the least and the most of them, and the processor time
of the server for a request.
"""
import argparse
import os
import random
import socket
import statistics
import subprocess
import tempfile

ALWAYS = "always"


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


def measure(args, build):
    """Requests a second, and microseconds of the server for each."""
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        if build:
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
                rate = load(args, port, args.requests)
                return rate, (processor_time(pid) - before) * 1e6 / args.requests
            finally:
                ask(port, "shutdown", "nosave")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--requests", type=int, default=30000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--dir", help="where the logs are")
    parser.add_argument("builds", nargs="+", metavar="NAME=FOLDER:POLICY")
    args = parser.parse_args()
    modes = [(ALWAYS, None), *(tuple(build.split("=", 1)) for build in args.builds)]
    rows = {name: [] for name, _ in modes}
    for number in range(args.rounds):
        order = modes[:]
        random.Random(number).shuffle(order)
        for name, build in order:
            rows[name].append(measure(args, build))
    print(f"-c {args.clients} -P {args.pipeline}, {args.requests} requests, {args.rounds} rounds")
    for name, _ in modes:
        ratios = [rate / always for (rate, _), (always, _) in zip(rows[name], rows[ALWAYS])]
        rate, cpu = (statistics.median(values) for values in zip(*rows[name]))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:<28} {rate:>9.0f}/s  {statistics.median(ratios):.3f} ({spread})  {cpu:.1f} us a request")


if __name__ == "__main__":
    main()
