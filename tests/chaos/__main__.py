"""Strikes at random: ``python -m tests.chaos N=50`` goes through the kill matrix three times with other moments.

Options: ``N=16`` how many strikes, ``SEED=0`` the first seed; one strike is replayed by ``N=1 SEED=its seed``.
Ends with 1 if anything did not hold.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.harness import finish
from tests.chaos.strikes import Range, Strike, summary
from tests.chaos.world import world


def main(arguments: list[str]) -> int:
    """Strikes ``N`` times from ``SEED`` on and prints a table."""
    given = dict(argument.split("=", 1) for argument in arguments)
    first, count = int(given.get("SEED", 0)), int(given.get("N", 16))
    failed, struck = 0, []
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as (nodes, server):
        place = Range(Path(folder), nodes, server)
        place.undisturbed()
        print(f"undisturbed: features {summary(place.expected)}, seconds {place.seconds}", flush=True)
        print(
            "seed victim   stage  after  killed                      exit done  rerun rows                     features"
        )
        for seed in range(first, first + count):
            strike = Strike(seed)
            outcome = place.strike(strike)
            failed += bool(outcome.wrong)
            struck.append(
                {
                    "seed": seed,
                    "victim": strike.victim,
                    "stage": strike.stage,
                    "after": round(outcome.delay, 1),
                    "killed": outcome.struck,
                    "exit": outcome.exit_code,
                    "done": outcome.done_before,
                    "rerun_rows": list(outcome.rerun.values()),
                    "features": outcome.features,
                    "wrong": outcome.wrong,
                }
            )
            print(
                f"{seed:4} {strike.victim:8} {strike.stage:6} {outcome.delay:4.1f}s {outcome.struck:28} "
                f"{outcome.exit_code:4} {outcome.done_before:4}  {list(outcome.rerun.values())!s:29} {outcome.features}"
                f"{''.join(f'{chr(10)}     WRONG: {line}' for line in outcome.wrong)}"
                f"{f'{chr(10)}     it said: {outcome.line}' if outcome.exit_code > 0 else ''}",
                flush=True,
            )
    print(f"{count - failed} of {count} strikes held", flush=True)
    finish({"strikes": count, "held": count - failed, "each": struck}, "chaos")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
