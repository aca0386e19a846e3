"""Schedules: drawn from a seed, recorded as the few things that happened, replayed and shortened."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation.kernel import Kernel, Thread

Action = tuple[Any, ...]
Actions = dict[str, Action]
"""What happened, by ``<thread>#<number of its step>`` (an operation) or ``...>`` (who went on after it)."""

SWITCH = (0.02, 0.1, 0.3, 0.6)
SECONDS = (0.5, 5.0, 5.0, 20.0, 70.0, 70.0, 130.0, 700.0)
COMMIT = 1 / 15
"""Rate of the gravest kinds between the operations that write a manifest, a promotion or the pointer."""

FOCUS = 1 / 40
"""Rate there of the one kind that some schedules have most of."""

HOT = 4
"""How many times likelier deaths and pauses are between the operations of the commit protocol."""
MOST_KILLS = 4
RATES = {
    "kill": 1 / 250,
    "kill_sent": 1 / 200,
    "stall": 1 / 150,
    "freeze": 1 / 200,
    "hang": 1 / 600,
    "power": 1 / 800,
    "full": 1 / 150,
    "slow_down": 1 / 30,
    "server_error": 1 / 40,
    "timeout": 1 / 40,
    "lost_answer": 1 / 20,
    "late": 1 / 80,
    "conflict": 1 / 10,
}
"""Share of the operations that each kind of event meets, in the schedules that know the kind."""

_AT_COMMITS = ("freeze", "kill", "kill_sent", "late")
_ANYWHERE = ("kill", "stall", "freeze")
_STORAGE_FAULTS = {"full", "slow_down", "server_error", "timeout", "lost_answer", "late", "conflict"}


class Explorer:
    """Draws what happens; each seed knows only some kinds of events, so that all mixtures come up."""

    def __init__(self, seed: object, without: frozenset[str] = frozenset()) -> None:
        draw = random.Random(f"schedule {seed}")
        self.actions: Actions = {}
        self.counts: Counter[str] = Counter()
        self._draw = draw
        self._random = draw.random
        known = {kind: rate for kind, rate in RATES.items() if draw.random() < 0.5 and kind not in without}
        switch = draw.choice(SWITCH)
        self._dies_waiting = 3 * known.get("kill", 0.0)
        hot = {kind: rate * (HOT if kind in _ANYWHERE else 1) for kind, rate in known.items()}
        commits = {kind: COMMIT if kind in _AT_COMMITS else rate for kind, rate in hot.items()}
        if (focus := draw.choice(("", *_AT_COMMITS))) in known:
            hot[focus], commits[focus] = FOCUS, 3 * COMMIT
        often = {"switch": max(switch, draw.choice(SWITCH[:3]))}
        self._tables = [_table({"switch": switch} | known), _table(often | hot), _table(often | commits)]
        self._kills = 0

    def action(self, kernel: Kernel, thread: Thread, hot: int, faults: tuple[str, ...]) -> Action | None:
        drawn = self._random()
        table = self._tables[hot]
        if drawn >= table[-1][0]:
            return None
        kind = next(kind for limit, kind in table if drawn < limit)
        action = self._made(kind, kernel, thread, faults)
        if action is not None:
            self.actions[f"{thread.name}#{thread.count}"] = action
            self.counts[kind] += 1
        return action

    def dies_waiting(self, thread: Thread) -> bool:
        if self._random() >= self._dies_waiting or self._kills >= MOST_KILLS:
            return False
        self._kills += 1
        self.actions[f"{thread.name}#{thread.count}"] = ("kill",)
        self.counts["kill_waiting"] += 1
        return True

    def pick(self, thread: Thread, ready: list[Thread]) -> Thread:
        chosen = self._draw.randrange(len(ready))
        if chosen:
            self.actions[f"{thread.name}#{thread.count}>"] = ("switch", ready[chosen].name)
        return ready[chosen]

    def _made(self, kind: str, kernel: Kernel, thread: Thread, faults: tuple[str, ...]) -> Action | None:
        if kind == "switch":
            ready = kernel.ready()
            return ("switch", self._draw.choice(ready).name) if ready else None
        if kind in ("stall", "freeze"):
            seconds = self._draw.choice((*SECONDS, self._draw.uniform(40, 80)))
            return kind, min(seconds, kernel.longest_pause, thread.process.longest_pause)
        if kind == "hang":
            return ("stall", 1e6) if ".worker" in thread.name else None
        if kind in _STORAGE_FAULTS:
            return (kind,) if kind in faults else None
        if self._kills >= MOST_KILLS or (kind == "power" and kind not in kernel.on_event):
            return None
        if kind == "kill_sent" and kind not in faults:
            return None
        self._kills += MOST_KILLS if kind == "power" else 1
        return (kind,)


def _table(rates: Mapping[str, float]) -> list[tuple[float, str]]:
    """Upper limits of the kinds in the unit interval."""
    total, table = 0.0, []
    for kind, rate in rates.items():
        total += rate
        table.append((total, kind))
    return table


class Replay:
    """Does what is written; nothing else happens, and of several threads the oldest goes on."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self.actions = actions

    def action(self, kernel: Kernel, thread: Thread, hot: int, faults: tuple[str, ...]) -> Action | None:
        return self.actions.get(f"{thread.name}#{thread.count}")

    def dies_waiting(self, thread: Thread) -> bool:
        return self.actions.get(f"{thread.name}#{thread.count}") == ("kill",)

    def pick(self, thread: Thread, ready: list[Thread]) -> Thread:
        wanted = self.actions.get(f"{thread.name}#{thread.count}>")
        return next((each for each in ready if wanted is not None and each.name == wanted[1]), ready[0])


QUIET = Replay({})
"""Nothing happens."""


def shortest(items: list[Any], fails: Callable[[list[Any]], bool], most: int = 300) -> list[Any]:
    """A part of a list of which no piece can be left out: delta debugging, which leaves out ever smaller pieces."""
    size, tries = max(1, len(items) // 2), 0
    while items and tries < most:
        before = len(items)
        start = 0
        while start < len(items) and tries < most:
            without = items[:start] + items[start + size :]
            tries += 1
            if fails(without):
                items = without
            else:
                start += size
        if len(items) == before:
            if size == 1:
                break
            size = max(1, size // 2)
    return items
