"""Sentences of Markdown pages and of plain text, and how many words they have."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST_WORDS = 35
CODE = "Code"
"""What a span of code counts as: one word, which may begin a sentence."""

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "approx.")
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")


def long_sentences(text: str, *, cells: bool = False) -> list[str]:
    """Sentences of plain text with more words than allowed; in ``cells`` of tables a semicolon ends one, too."""
    return [each for each in split_sentences(text, cells=cells) if count_words(each) > MOST_WORDS]


def long_sentences_of_page(page: str) -> Iterator[tuple[int, str]]:
    """Line and sentence, for each of a Markdown page that has more words than allowed.

    Blocks of code, HTML and targets of links are left out. Each item of a list, heading and cell of a table is a text
    of its own.
    """
    cell = False
    for token in _MARKDOWN.parse(page):
        if token.type in ("th_open", "td_open"):
            cell = True
        elif token.type in ("th_close", "td_close"):
            cell = False
        elif token.type == "inline":
            line = token.map[0] + 1 if token.map else 0
            yield from ((line, each) for each in long_sentences(plain_text(token), cells=cell))


def plain_text(token: Token) -> str:
    """The text of a paragraph, a heading or a cell."""
    parts = []
    for child in token.children or []:
        if child.type == "text":
            parts.append(child.content)
        elif child.type == "code_inline":
            parts.append(CODE)
        elif child.type == "image":
            parts.append(plain_text(child))
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)


def split_sentences(text: str, *, cells: bool = False) -> list[str]:
    """Cuts a text behind full stops, question and exclamation marks.

    >>> split_sentences("It reads, e.g. Parquet. 2 files are left! (None is lost.) Then `go`.")
    ['It reads, e.g. Parquet.', '2 files are left!', '(None is lost.', 'Then `go`.']
    """
    text = " ".join(text.split())
    for number, each in enumerate(_ABBREVIATIONS):
        text = re.sub(rf"(?<!\w){re.escape(each)}", f"\0{number}\0", text)
    parts = _END.split(text) if not cells else [part for each in _END.split(text) for part in each.split("; ")]
    for number, each in enumerate(_ABBREVIATIONS):
        parts = [part.replace(f"\0{number}\0", each) for part in parts]
    return [part for part in parts if part]


def count_words(sentence: str) -> int:
    """How many words a sentence has; dashes and other signs by themselves are none.

    >>> count_words("It costs 3 % - not more: see [A, B].")
    8
    """
    return sum(any(sign.isalnum() for sign in word) for word in sentence.split())
