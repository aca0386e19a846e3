"""Plays schedules of the run from dispatch to commit: ``python -m tests.simulation N=2000``.

Options: ``N=2000`` how many seeds, ``SEED=0`` the first; ``WORKERS`` processes at a time (default: one a core). With
``SEED`` alone that one is played. One that fails is shortened and printed step by step. Ends with one line of JSON;
exit code 1 if any failed.
"""

import json
import os
import sys

from tests.simulation.run import Failure, explore, explore_in_processes, shorten, trace_of


def main(arguments: list[str]) -> int:
    """Plays, prints, and says whether anything failed."""
    given = dict(argument.split("=", 1) for argument in arguments)
    first, workers = int(given.get("SEED", 0)), int(given.get("WORKERS", os.cpu_count() or 1))
    count = int(given.get("N", 1 if "SEED" in given else 2000))
    tally = explore(first, count) if min(workers, count) == 1 else explore_in_processes(first, count, workers)
    for failure in tally.failures[:5]:
        describe(shorten(failure))
    rate = 60 * tally.seeds / tally.seconds
    print(f"{tally.seeds} schedules, {len(tally.failures)} failed; {rate:.0f} a minute, {tally.steps} steps")
    for title, counts in (("events", tally.faults), ("checks", tally.checks), ("outcomes", tally.outcomes)):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    facts = {
        "schedules": tally.seeds,
        "failed": [failure.seed for failure in tally.failures],
        "schedules_per_minute": round(rate),
        "steps": tally.steps,
        "events": dict(tally.faults),
        "invariants": dict(tally.checks),
    }
    print(json.dumps(facts))
    return int(bool(tally.failures))


def describe(failure: Failure) -> None:
    """Prints a failed seed: what was wrong, who was there, what happened."""
    print(f"SEED={failure.seed} failed: {type(failure.error).__name__} {failure.error}")
    print(f"  storage {failure.scenario.kind}, {failure.scenario.before} versions before")
    for actor in failure.scenario.actors:
        print(f"  {actor}")
    for place, action in failure.actions.items():
        print(f"  at {place}: {' '.join(map(str, action))}")
    for line in trace_of(failure):
        print(f"    {line}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
