"""Prints what was tried and how it ended."""

import sys

from tests.fuzz.run import fuzz

if __name__ == "__main__":
    asked = dict(argument.split("=", 1) for argument in sys.argv[1:])
    tally = fuzz(int(asked.get("N", 10_000)), int(asked.get("SEED", 0)), int(asked.get("WORKERS", 1)))
    print("\n".join(tally.lines()))
    sys.exit(1 if tally.below() else 0)
