import io

import pytest
from rich.console import Console

from tasks.rendering import markdown, terminal_table


def printed(report, width=120):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(terminal_table(report))
    return console.file.getvalue()


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_terminal_shows_scores_rows_retrieval_and_speed(report):
    shown = lines(printed(report))
    for line in (
        "accuracy, % complete without text without image",
        "fused 70.1 30.7 24.0 the vectors as written",
        "fused − concat, complete −1.0 −1.8 to +0.2",
        "text → image 21.0 61.0 79.0 0.391",
        "rejected 1",
        "without image 112",
        "bad: not an image 3",
        "embed text 2,000 1.90 s 1,053 tokenising",
        "warning: alignment.dim 300 was clipped to 256, the rank of the data",
    ):
        assert line in shown


def test_terminal_ends_with_the_verdict(report):
    assert " ".join(printed(report).split()).endswith("without image it is level with text alone.")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_terminal_of_any_width(report, width):
    assert all(len(line) <= width for line in printed(report, width).splitlines())


def test_names_are_not_read_as_markup(report):
    report["rows"]["bad"] = {"[red]oops[/red] [/]": 4}
    assert "bad: [red]oops[/red] [/] 4" in lines(printed(report))


def test_markdown_tables_are_whole(report):
    rows = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert "| fused | **70.1** | **30.7** | **24.0** | the vectors as written |".replace("**70.1**", "70.1") in rows
    assert "| concat | **71.1** | 25.0 | 20.0 | side by side, gaps filled with the mean |" in rows
    assert "| embed text | 2,000 | 1.90 s | 1,053 | tokenising |" in rows


def test_markdown_escapes_what_texts_hold(report):
    report["name"] = "<b>|x|\n# head [a](javascript:b)"
    report["rows"]["bad"] = {"a|b": 1}
    text = markdown(report)
    assert text.startswith("## \\<b\\>\\|x\\| \\# head \\[a\\]\\(javascript:b\\)\n")
    assert "| bad: a\\|b | 1 |" in text


@pytest.mark.parametrize("report", [{}, {"probe": None, "rows": None, "speed": {"fit": None}, "retrieval": []}])
def test_an_empty_report_is_rendered(report):
    assert "Nothing to judge by" in printed(report)
    assert "Nothing to judge by" in markdown(report)
