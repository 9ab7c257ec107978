"""SQLite under the supervisor.

write DB PROCESSES ROWS   each process commits rows to DB one by one and prints each after its commit
time DB PROCESSES ROWS    the same, and prints only how many commits there were a second
read DB                   prints `PRAGMA integrity_check` and every row, in the order of commits
"""
import os
import sqlite3
import sys
import time

CHECKPOINT = int(os.environ.get("CHECKPOINT", "50"))


def connect(path):
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute(f"PRAGMA synchronous = {os.environ.get('SYNCHRONOUS', 'FULL')}")
    database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
    return database


def write(path, process, rows, tells):
    database = connect(path)
    for row in range(rows):
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO rows (process, row) VALUES (?, ?)", (process, row))
        database.execute("COMMIT")
        if tells:
            os.write(1, f"{process} {row}\n".encode())


def main():
    mode, path = sys.argv[1:3]
    if mode == "read":
        database = sqlite3.connect(path)
        print(database.execute("PRAGMA integrity_check").fetchone()[0])
        for process, row in database.execute("SELECT process, row FROM rows ORDER BY id"):
            print(process, row)
        return
    database = connect(path)
    database.execute(f"PRAGMA journal_mode = {os.environ.get('JOURNAL', 'WAL')}")
    database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, process INTEGER, row INTEGER)")
    database.close()
    processes, rows = int(sys.argv[3]), int(sys.argv[4])
    begun = time.monotonic()
    for process in range(processes):
        if os.fork() == 0:
            try:
                write(path, process, rows, mode == "write")
            except sqlite3.Error as error:
                print(f"process {process}: {error}", file=sys.stderr)
            os._exit(0)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    if mode == "time":
        print(round(processes * rows / (time.monotonic() - begun)))


main()
