import io

import pytest
from rich.console import Console

from barycenter.tasks.report.rendering import markdown, terminal_table


def printed(report, width=120):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(terminal_table(report))
    return console.file.getvalue()


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_terminal_shows_scores_gaps_retrieval_and_speed(report):
    shown = lines(printed(report, 80))
    for line in (
        "shop: probe on 1,815 rows, out of fold",
        "accuracy, % complete without text without image",
        "fused 70.1 (68.0–72.0) 30.7 24.0",
        "fused − image, complete +39.4 +37.0 to +42.0",
        "fused − concat, complete −1.0 −1.8 to +0.2",
        "text → image 21.0 61.0 79.0 0.391",
        "embed text 2,000 19 s 105 tokenizing",
        "fit 2,000 1 min 35 s 21 done before",
        "time: 20 s in all stages, most of it embed text (19 s, limited by: tokenizing)",
        "rows: 2,000 read, 1,999 written, 1 rejected; without text 81, image 112; missing",
        "or bad inputs: null 181, not an image 3",
        "split: 1,452 labeled rows to learn from, 363 held out, by a hash of `design`",
        "alignment: joint, 256 dimensions, chosen by: held-out retrieval",
        "What would help",
        "- Every input is needed. What the score becomes: without text −39.4 points",
        "warning: alignment.dim 300 was clipped to 256, the rank of the data",
    ):
        assert line in shown


def test_terminal_ends_with_the_verdict(report):
    assert " ".join(printed(report).split()).endswith("Without image it is level with text alone.")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_of_any_width(report, width):
    assert all(len(line) <= width for line in printed(report, width).splitlines())


def test_six_inputs_fit_eighty_columns(report):
    names = [f"view{number}" for number in range(6)]
    conditions = ["complete", *(f"without {name}" for name in names)]
    candidates = [*names, "naive_mean", "pca_mean", "concat", "concat_imputed", "fused"]
    report["probe"] = {
        "metric": "accuracy",
        "n_test": 400,
        "candidates": {name: dict.fromkeys(conditions, 0.987) for name in candidates},
        "intervals": {name: {condition: [0.9, 1.0] for condition in conditions} for name in candidates},
    }
    shown = lines(printed(report, 80))
    assert "concat_imputed 98.7 98.7 98.7 98.7 98.7 98.7 98.7" in shown


def test_names_are_not_read_as_markup(report):
    report["rows"]["bad"] = {"[red]oops[/red] [/]": 4}
    assert "bad inputs: [red]oops[/red] [/] 4" in " ".join(printed(report).split())


def test_markdown_tables_are_whole(report):
    rows = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert "| fused | 70.1 \\(68.0–72.0\\) | **30.7** | **24.0** | the vectors as written |" in rows
    assert "| concat | **71.1** | 25.0 | 20.0 | side by side, gaps filled with the mean |" in rows
    assert "| embed text | 2,000 | 19 s | 105 | tokenizing |" in rows
    assert "| embed vec | 2,000 | 0.50 s | 4,000 |  |" in rows, "nobody waits for it"


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
