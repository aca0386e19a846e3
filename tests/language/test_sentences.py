"""No page, message, help text, description or text of the report has a sentence of more than 35 words."""

import ast
import re
from pathlib import Path

import pytest
import typer.main

from barycenter.flows.cli import app
from tests.language.sentences import count_words, long_sentences, long_sentences_of_page, split_sentences
from tests.messages.source import modules

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
    *sorted(ROOT.glob("infra/deploy/**/*.md")),
]

TEMPLATES = sorted((ROOT / "tasks" / "report").rglob("*.html.jinja"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_have_short_sentences(page):
    found = long_sentences_of_page(page.read_text(encoding="utf-8"))
    lines = [f"{page.relative_to(ROOT)}:{line}: {count_words(text)} words: {text}" for line, text in found]
    assert not lines, "\n".join(lines)


def test_strings_of_the_source_have_short_sentences():
    found = [
        f"{name}, line {line}: {count_words(sentence)} words: {sentence}"
        for name, module in modules().items()
        for line, text in strings_of(module.tree)
        for sentence in long_sentences(text)
    ]
    assert not found, "\n".join(found)


def test_help_texts_have_short_sentences():
    group = typer.main.get_command(app)
    texts = [(name, command.help or "") for name, command in group.commands.items()]
    texts += [
        (f"{name} {parameter.name}", getattr(parameter, "help", None) or "")
        for name, command in group.commands.items()
        for parameter in command.params
    ]
    assert len(texts) > 100
    assert not [(name, sentence) for name, text in texts for sentence in long_sentences(text)]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_texts_of_templates_have_short_sentences(template):
    text = re.sub(r"\{%.*?%\}|\{#.*?#\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    pieces = re.split(r"<[^>]*>", re.sub(r"\{\{.*?\}\}", "Value", text, flags=re.DOTALL))
    assert not [sentence for piece in pieces for sentence in long_sentences(piece)]


def strings_of(tree):
    """Lines and texts of a module's strings, those of f-strings with a word for each value, without docstrings."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            words = (part.value if isinstance(part, ast.Constant) else "value" for part in node.values)
            yield node.lineno, "".join(words)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def test_a_page_is_cut_into_sentences():
    page = (
        "# A heading\n\nOne sentence, e.g. this. `Two` are here! [A link](https://example.org/a.b?c=d).\n\n"
        "    Code. Of some. Words.\n\n| one; two | three |\n| --- | --- |\n| four. five | six |\n"
    )
    assert list(long_sentences_of_page(page)) == []
    assert split_sentences("It reads, e.g. This. (Three) more. Code is here! No 2. 3 are left") == [
        "It reads, e.g. This.",
        "(Three) more.",
        "Code is here!",
        "No 2.",
        "3 are left",
    ]


@pytest.mark.parametrize(
    "page",
    [
        "word " * 36,
        "- " + "word " * 36,
        "| a |\n| --- |\n| " + "word " * 36 + "|",
        "> " + "`code` " * 36,
        "# " + "word " * 36,
        "word " * 20 + "[link with words](x) " + "word " * 13,
    ],
)
def test_a_long_sentence_is_found_wherever_it_is(page):
    assert len(list(long_sentences_of_page(page))) == 1


def test_what_is_no_sentence_is_not_counted():
    words = "word " * 36
    assert not list(long_sentences_of_page(f'```\n{words}\n```\n\n<!-- {words} -->\n\n[x](http://a "{words}")'))
    assert not list(long_sentences_of_page("| a |\n| --- |\n| " + "word " * 20 + "; " + "word " * 20 + "|"))
    assert list(long_sentences_of_page("word " * 20 + "; " + "word " * 20))
