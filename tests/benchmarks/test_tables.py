"""Pages say what the results say."""

import re

import pytest

from benchmarks.result_files import ROOT
from benchmarks.tables import PAGES, filled, handwritten
from benchmarks.tables.blocks import BLOCKS, number, points
from benchmarks.tables.pages import names

TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_shows_the_figures_of_the_results(page):
    assert filled(TEXTS[page]) == TEXTS[page], f"{page}: run `python -m benchmarks.tables`"


@pytest.mark.parametrize("page", TEXTS)
def test_no_page_states_a_measurement_outside_its_blocks(page):
    assert not handwritten(TEXTS[page]), f"{page}: move it into a block of benchmarks/tables"


def test_every_block_is_on_a_page():
    assert {name for text in TEXTS.values() for name in names(text)} == set(BLOCKS)


def test_another_figure_in_a_block_differs():
    text = TEXTS["docs/measured.md"]
    start = text.index("<!-- figures: reader -->")
    at = re.compile(r"\d").search(text, text.index("Lance", start)).start()
    wrong = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    assert filled(wrong) == text != wrong


def test_an_unknown_block_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        filled("<!-- figures: nothing -->\n<!-- end of figures -->")


@pytest.mark.parametrize(
    "phrase",
    ["it reads 900 rows/s", "2.5 times as fast", "0.4 points below the text", "0.3 points (-1.0 to +0.2) above"],
)
def test_a_measurement_in_prose_is_found(phrase):
    assert handwritten(f"As measured, {phrase}.")
    assert not handwritten(f"<!-- figures: reader -->\n{phrase}\n<!-- end of figures -->\n\n    {phrase}\n")


def test_readmes_links_name_sections_of_the_page():
    headings = re.findall(r"^#+ (.*)$", TEXTS["docs/measured.md"], re.MULTILINE)
    sections = {heading.lower().replace(" ", "-") for heading in headings}
    links = set(re.findall(r"docs/measured\.md#([\w-]+)", TEXTS["README.md"]))
    assert links
    assert links <= sections


def test_every_table_of_the_page_says_where_it_is_from():
    for name in names(TEXTS["docs/measured.md"]):
        last = BLOCKS[name]().splitlines()[-1]
        assert re.fullmatch(r"\*From `.*`; \d{4}-\d\d-\d\d; commit .*\.\*", last), name


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0774, "0.077"), (0.2, "0.200"), (28.486, "28.5"), (1138.2, "1,138"), (163, "163")],
)
def test_numbers(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(("share", "shown"), [(0.009, "+0.9"), (-0.0004, "0.0"), (-0.003, "-0.3")])
def test_points(share, shown):
    assert points(share) == shown
