"""Prints survivors, a table of scores, and one line of JSON."""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tests.mutants import process
from tests.mutants.equivalents import Equivalents
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
_NO_TESTS = 5
_SHOWN = ("killed", "survived", "equivalent", "late")


def chosen(modules: list[str], count: int | None, seed: int) -> list[tuple[Target, list[Mutant]]]:
    """A sample over the files that begin with one of ``modules``, or whose target is called so; all by default."""
    everything = [
        (target, mutant)
        for target in TARGETS
        for file in target.files
        if not modules or target.name in modules or any(file.startswith(module) for module in modules)
        for mutant in mutants_of(ROOT, file)
    ]
    places = range(len(everything))
    if count is not None and count < len(everything):
        places = sorted(random.Random(seed).sample(places, count))
    picked = [everything[place] for place in places]
    return [(target, [mutant for mine, mutant in picked if mine is target]) for target in TARGETS]


def run_target(target: Target, mutants: list[Mutant], workers: int) -> dict[Mutant, int]:
    """Exit status of the tests by mutant: 0 where nothing failed."""
    ended: dict[Mutant, int] = {}

    def body(server: process.Server) -> None:
        known = server.learn()
        print(f"{target.name}: {len(known.seconds)} tests, {sum(known.seconds.values()):.0f} s", flush=True)
        waiting, running = list(reversed(mutants)), {}
        while waiting or running:
            while waiting and len(running) < workers:
                mutant = waiting.pop()
                running[mutant] = server.start(mutant, known)
            for mutant, forked in list(running.items()):
                if (status := forked.poll()) is not None:
                    ended[mutant] = status
                    if not status:
                        print(f"{mutant.file}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}", flush=True)
                    del running[mutant]
            time.sleep(0.01)

    process.Server(ROOT, target, body).run()
    if lost := [mutant for mutant, status in ended.items() if status == _NO_TESTS]:
        raise RuntimeError(f"{lost[0].file}:{lost[0].line}: none of its tests was found")
    return ended


def main(arguments: list[str]) -> int:
    """Runs what is asked for; 1 where a change survived that is not listed as equivalent."""
    asked = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    modules = [argument for argument in arguments if "=" not in argument]
    count, seed = int(asked["N"]) if "N" in asked else None, int(asked.get("SEED", 0))
    process.preload()
    equivalents, begin = Equivalents.read(), time.monotonic()
    total: Counter[str] = Counter()
    table: list[tuple[str, Counter[str]]] = []
    for target, mutants in chosen(modules, count, seed):
        if not mutants:
            continue
        counted: Counter[str] = Counter()
        tried = [mutant for mutant in mutants if mutant not in equivalents]
        counted["equivalent"] = len(mutants) - len(tried)
        for status in run_target(target, tried, int(asked.get("WORKERS", 1))).values():
            counted["killed" if status else "survived"] += 1
            counted["late"] += status < 0
        table.append((target.name, counted))
        total.update(counted)
    for name, counted in [*table, ("all", total)]:
        counts = "".join(f"{counted[key]:6} {key}" for key in _SHOWN)
        print(f"{name:16}{counts}   {_score(counted):.1%}")
    seconds = round(time.monotonic() - begin)
    figures = {key: total[key] for key in _SHOWN} | {"score": round(_score(total), 4)}
    print(json.dumps({**figures, "n": count, "seed": seed, "seconds": seconds}))
    return 1 if total["survived"] else 0


def _score(counted: Counter[str]) -> float:
    return counted["killed"] / max(counted["killed"] + counted["survived"], 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
