"""docs/troubleshooting.md: every message that ends a command, grouped and explained by advice.yaml."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.messages.collect import PYTHON, Message, collect

ADVICE = Path(__file__).with_name("advice.yaml")


@dataclass(frozen=True)
class Entry:
    """Messages that are explained together.

    Attributes:
        area: Title of the section.
        title: Title of the entry.
        advice: What they mean and what to do.
        match: Fragments of the messages; each message has one of them.
        modules: Modules whose other messages belong here.
        python: Whether its messages are those of exceptions in Python.
    """

    area: str
    title: str
    advice: str
    match: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    python: bool = False


@dataclass(frozen=True)
class Advice:
    """The hand-written part of the page."""

    head: str
    areas: dict[str, str]
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls) -> "Advice":
        """Reads ``advice.yaml``."""
        content = yaml.safe_load(ADVICE.read_text(encoding="utf-8"))
        entries = [
            Entry(
                area["title"],
                entry["title"],
                entry["advice"].strip(),
                tuple(entry.get("match", ())),
                tuple(entry.get("modules", ())),
                area.get("python", False),
            )
            for area in content["areas"]
            for entry in area["entries"]
        ]
        areas = {area["title"]: area.get("about", "").strip() for area in content["areas"]}
        return cls(content["head"].strip(), areas, tuple(entries))

    def place(self, message: Message) -> list[Entry]:
        """The entries that a message belongs to; one, where all is well."""
        entries = [entry for entry in self.entries if entry.python == (message.code == PYTHON)]
        found = [entry for entry in entries if any(fragment in message.text for fragment in entry.match)]
        if found:
            return found
        near = [(len(name), entry) for entry in entries for name in entry.modules if _within(message.module, name)]
        longest = max((length for length, _ in near), default=0)
        return [entry for length, entry in near if length == longest]

    def unused(self, messages: Sequence[Message]) -> list[str]:
        """Fragments and modules that no message has."""
        texts, names = [each.text for each in messages], {each.module for each in messages}
        fragments = [part for entry in self.entries for part in entry.match if not any(part in text for text in texts)]
        modules = [part for entry in self.entries for part in entry.modules if not any(_within(n, part) for n in names)]
        return fragments + modules


def _within(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def page() -> str:
    """The whole page."""
    advice = Advice.read()
    listed: dict[Entry, dict[str, int]] = defaultdict(dict)
    for message in collect():
        for entry in advice.place(message)[:1]:
            listed[entry][message.text] = message.code
    parts = [advice.head]
    for area, about in advice.areas.items():
        parts += [f"## {area}", *filter(None, [about])]
        for entry in advice.entries:
            if entry.area == area:
                parts += [f"### {entry.title}", entry.advice, _list(listed[entry])]
    return "\n\n".join(filter(None, parts)) + "\n"


def _list(codes: dict[str, int]) -> str:
    return "\n".join(
        f"- {_code(text)} ({'Python' if code == PYTHON else code})" for text, code in sorted(codes.items())
    )


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else f"`` {text} ``"
