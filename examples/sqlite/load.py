"""A load for crash tests of SQLite.

write DB PROCESSES ROWS   each process commits rows to DB one by one and prints `PROCESS ROW` after each commit
time DB PROCESSES ROWS    the same, and prints only how many commits there were a second
read DB                   prints every row, in the order of commits; exits with 1 if `PRAGMA integrity_check` finds damage
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


def read(path):
    database = sqlite3.connect(path)
    try:
        checked = database.execute("PRAGMA integrity_check").fetchone()[0]
        rows = database.execute("SELECT process, row FROM rows ORDER BY id").fetchall()
    except sqlite3.OperationalError as error:
        # What crashed before it had made the table has none.
        if str(error) != "no such table: rows":
            raise
        return
    if checked != "ok":
        sys.exit(f"integrity_check: {checked}")
    for process, row in rows:
        print(process, row)


def main():
    mode, path = sys.argv[1:3]
    if mode == "read":
        read(path)
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
