"""docs/api.md: every public name is there, and has an example that a test runs."""

import re

import barycenter
from tests.docs.blocks import ROOT, blocks_of

PAGE = ROOT / "docs" / "api.md"


def test_every_public_name_is_on_the_page_under_its_own_place():
    named = re.findall(r"^::: ([\w.]+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(f"{value.__module__}.{value.__name__}" for value in public())


def test_every_public_name_has_an_example():
    """Doctests run with the tests of fusion, blocks of the page with test_blocks.py."""
    on_page = " ".join(block.text for block in blocks_of(PAGE))
    without = [value.__name__ for value in public() if "Examples:\n" not in value.__doc__]
    assert [name for name in without if not re.search(rf"\b{name}(\.load)?\(", on_page)] == []


def public():
    return [getattr(barycenter, name) for name in barycenter.__all__]
