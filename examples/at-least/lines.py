"""Prints lines `0 NUMBER` for ever, some hundred a second: what a program logs that has something to tell."""
import itertools
import time

for number in itertools.count():
    print(0, number, flush=True)
    time.sleep(0.003)
