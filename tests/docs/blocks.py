"""The code blocks of the pages, what each is written in, and the command lines in it."""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

from barycenter.infra.job.models import Job

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
PROGRAMS = (
    "barycenter", "make", "python", "python3", "pip", "git", "cd", "source", "export", "prefect", "ray", "docker",
    "kubectl", ".venv/bin/python", ".venv/bin/barycenter",
)  # fmt: skip
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block.

    Attributes:
        page: Where it is, from the root.
        line: Its first line there, from 1.
        info: What the fence says that it is written in; empty without it.
        text: What it holds.
    """

    page: str
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def language(self) -> str:
        """``shell``, ``python``, ``yaml`` or ``text``: what it says, or what it reads as."""
        if self.info:
            return {"bash": "shell", "sh": "shell", "console": "shell", "py": "python"}.get(self.info, self.info)
        lines = [line for line in self.text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if lines and program(lines[0]) in PROGRAMS:
            return "shell"
        if _is_job(self.text):
            return "yaml"
        if lines and lines[0].startswith(("import ", "from ", "with ", ">>> ")) and _is_python(self.text):
            return "python"
        return "text"


def blocks() -> list[Block]:
    """Those of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]


def blocks_of(page: Path) -> list[Block]:
    """Those of a page, as CommonMark reads it."""
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    return [
        Block(str(page.relative_to(ROOT)), token.map[0] + 1, token.info.strip().split(" ")[0], token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map is not None
    ]


def commands(text: str) -> list[list[str]]:
    """The words of each command line, without comments, prompts and assignments before the program."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [_after_assignments(words) for words in found if words]


def program(line: str) -> str:
    """The first word of a command line after assignments."""
    words = _after_assignments(line.removeprefix("$ ").split())
    return words[0] if words else ""


def _after_assignments(words: list[str]) -> list[str]:
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    return words


def _is_job(text: str) -> bool:
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return isinstance(read, dict) and bool(read) and set(read) <= set(Job.model_fields)


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return ">>> " in text
    return True
