"""A load for crash tests of InfluxDB 1.x, and its check.

write DIR CLIENTS POINTS   starts influxd on DIR; each client writes its points one by one, and `CLIENT POINT` is printed
                           after the 204 of each
time DIR CLIENTS SECONDS   the same, and prints only how many points there were a second
read DIR                   starts influxd on DIR and prints every point; fails if a point or a table is damaged, or if what is
                           written from then on is gone after the next start

INFLUXD is the command that is started (default: influxd). FSYNC_DELAY is `wal-fsync-delay` (default: 0s), SNAPSHOT
`cache-snapshot-memory-size`, SHARDS the number of shards that clients write to in turn (default: 1). With ONCE=1 `read` goes
on writing in the same run of influxd that has read what the crash left.
"""
import glob
import json
import os
import random
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zlib

ONCE = os.environ.get("ONCE") == "1"
SHARDS = int(os.environ.get("SHARDS", "1"))
# Of the first point, nanoseconds. What is in one week is in one shard, which has one log.
BEGIN = 10**18
WEEK = 7 * 24 * 3600 * 10**9
# What is written after the crash.
MORE = range(10**6, 10**6 + 20)
NEVER = float("inf")
WITHIN = 300


class Server:
    """influxd on a folder, on ports that the system chooses."""

    def __init__(self, folder):
        settings = {
            "REPORTING_DISABLED": "true",
            "BIND_ADDRESS": "127.0.0.1:0",
            "META_DIR": f"{folder}/meta",
            "DATA_DIR": f"{folder}/data",
            "DATA_WAL_DIR": f"{folder}/wal",
            "DATA_WAL_FSYNC_DELAY": os.environ.get("FSYNC_DELAY", "0s"),
            # Small, so that the log becomes a table about once a second.
            "DATA_CACHE_SNAPSHOT_MEMORY_SIZE": os.environ.get("SNAPSHOT", "20000"),
            "DATA_QUERY_LOG_ENABLED": "false",
            "MONITOR_STORE_ENABLED": "false",
            "SUBSCRIBER_ENABLED": "false",
            "CONTINUOUS_QUERIES_ENABLED": "false",
            "HTTP_BIND_ADDRESS": "127.0.0.1:0",
            "HTTP_LOG_ENABLED": "false",
        }
        environment = dict(os.environ)
        environment.update({f"INFLUXDB_{name}": value for name, value in settings.items()})
        command = shlex.split(os.environ.get("INFLUXD", "influxd")) + ["-config", "/dev/null"]
        self.said = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said
        )

    def __enter__(self):
        until = time.monotonic() + WITHIN
        while time.monotonic() < until:
            found = re.search(rb'"Listening on HTTP".* addr=127\.0\.0\.1:(\d+)', self.output())
            if found:
                self.address = ("127.0.0.1", int(found.group(1)))
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.end(signal.SIGKILL)
        sys.exit(f"influxd does not listen: {self.output().decode(errors='replace')[-2000:]}")

    def __exit__(self, *_):
        self.end(signal.SIGTERM)

    def output(self):
        return os.pread(self.said.fileno(), 1 << 20, 0)

    def end(self, how):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()

    def connect(self):
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def query(self, text):
        """The answer to one statement."""
        body = urllib.parse.urlencode({"q": text, "db": "db", "epoch": "ns"})
        with self.connect() as connection:
            connection.sendall(
                f"POST /query HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        return json.loads(answer.partition(b"\r\n\r\n")[2])["results"][0]

    def points(self):
        """The numbers of each client's points."""
        answer = self.query("SELECT v FROM m GROUP BY w")
        if "error" in answer:
            sys.exit(f"influxd answers: {answer['error']}")
        points = {}
        for series in answer.get("series", []):
            client = int(series["tags"]["w"])
            for at, number in series["values"]:
                if at != stamp(client, number):
                    sys.exit(f"client {client} did not write {number} at {at}")
            points[client] = [number for _, number in series["values"]]
        return points


def stamp(client, number):
    """The time of a point."""
    return BEGIN + WEEK * (client % SHARDS) + number


def request(client, number):
    # A new series begins every hundred points.
    series = number // 100
    body = b"m,w=%d,s=%d v=%di %d" % (client, series, number, stamp(client, number))
    return b"POST /write?db=db HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def write(server, clients, numbers, tells=NEVER, until=NEVER):
    """Each client has one point under way at a time. From the time `tells` on each is told when it is acknowledged. Answers
    how many were before the time `until`."""
    waits = select.epoll()
    at = {}
    acknowledged = 0
    for client in range(clients):
        connection = server.connect()
        at[connection.fileno()] = [connection, client, numbers.start]
        waits.register(connection, select.EPOLLIN)
        connection.sendall(request(client, numbers.start))
    while at:
        for descriptor, _ in waits.poll():
            connection, client, number = at[descriptor]
            answer = connection.recv(1 << 16)
            if not answer.startswith(b"HTTP/1.1 204 ") or not answer.endswith(b"\r\n\r\n"):
                sys.exit(f"client {client}, point {number}: {answer[-500:]}")
            now = time.monotonic()
            if now > tells:
                # One write, after the answer: this is the acknowledgement.
                os.write(1, b"%d %d\n" % (client, number))
            acknowledged += now < until
            number += 1
            if number == numbers.stop or now > until:
                waits.unregister(connection)
                at.pop(descriptor)[0].close()
                continue
            at[descriptor][2] = number
            connection.sendall(request(client, number))
    return acknowledged


def sync_all(folder):
    """Syncs every file: influxd leaves its series files to the kernel, which takes half a minute."""
    for where, _, files in os.walk(folder):
        for name in [".", *files]:
            descriptor = os.open(os.path.join(where, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def load(mode, folder, clients, much):
    with Server(folder) as server:
        server.query("CREATE DATABASE db")
        write(server, clients, range(-1, 0))
    sync_all(folder)
    with Server(folder) as server:
        begun = time.monotonic()
        if mode == "time":
            print(round(write(server, clients, range(10**6), until=begun + much) / much))
        else:
            # Any time after the start, for crashes before, in and after the writing of a table.
            write(server, clients, range(much), tells=begun + random.uniform(0, 3))


def check_table(path):
    """The checksums of all blocks that the index of a TSM file names."""
    with open(path, "rb") as table:
        data = table.read()
    if data[:5] != b"\x16\xd1\x16\xd1\x01":
        sys.exit(f"{path}: no table")
    at, end = struct.unpack(">Q", data[-8:])[0], len(data) - 8
    while at < end:
        at += 2 + struct.unpack_from(">H", data, at)[0]
        blocks = struct.unpack_from(">H", data, at + 1)[0]
        at += 3
        for _ in range(blocks):
            begin, size = struct.unpack_from(">QI", data, at + 16)
            at += 28
            if zlib.crc32(data[begin + 4 : begin + size]) != struct.unpack_from(">I", data, begin)[0]:
                sys.exit(f"{path}: wrong checksum of the block at {begin}")


def go_on(server, points):
    """Writes behind what is there, and kills influxd; what must be there then."""
    write(server, len(points), MORE)
    server.end(signal.SIGKILL)
    return {client: [*numbers, *MORE] for client, numbers in points.items()}


def read(folder):
    for table in glob.glob(f"{folder}/data/db/*/*/*.tsm"):
        check_table(table)
    with Server(folder) as server:
        found = server.points()
        if ONCE:
            expected = go_on(server, found)
    if not ONCE:
        # This run of influxd finds nothing torn at the end of its log.
        with Server(folder) as server:
            expected = go_on(server, found)
    with Server(folder) as server:
        there = server.points()
    for client, numbers in expected.items():
        gone = sorted(set(numbers) - set(there.get(client, [])))
        if gone:
            sys.exit(f"client {client}: gone after a restart: {gone}")
    for client, numbers in found.items():
        for number in numbers:
            print(client, number)


def main():
    words = sys.argv[1:]
    if len(words) == 2 and words[0] == "read":
        read(words[1])
    elif len(words) == 4 and words[0] in ("write", "time"):
        load(words[0], words[1], int(words[2]), int(words[3]))
    else:
        sys.exit("usage: load.py write DIR CLIENTS POINTS, load.py time DIR CLIENTS SECONDS, load.py read DIR")


main()
