"""Tables of a second run beside peers that do not do things twice either."""

from typing import Any

from benchmarks.tables.blocks import block, last, table, with_source

_SHOWN = {
    "Barycenter": "Barycenter",
    "CocoIndex, a component a file": "CocoIndex, a component a file",
    "CocoIndex, a component a row": "CocoIndex, a component a row",
    "Pixeltable, all rows again": "Pixeltable, all rows given again",
    "Pixeltable, difference by hand": "Pixeltable, difference found by hand",
}


@block
def second_run_rows() -> str:
    """Rows that reached the model, beside CocoIndex and Pixeltable."""
    run = last("again_peers")
    rows = [[change["change"], *(_rows(change["found"][name]) for name in _SHOWN)] for change in run.figures["changes"]]
    head = [f"{run.figures['rows']} texts, then: rows through the model", *_SHOWN.values()]
    first = ", ".join(f"{found['rows to the model']} ({_SHOWN[name]})" for name, found in run.figures["first"].items())
    text = f"{table(head, rows)}\n\n\\* The output is not as the corpus afterwards. In the first run: {first}."
    if other := run.figures.get("another app of CocoIndex"):
        text += f" A second app of CocoIndex over the same rows: {other['rows to the model']}."
    return with_source(text, run)


@block
def second_run_seconds() -> str:
    """What the second run took of the processor and of the clock."""
    run = last("again_peers")
    rows = [["the first run", *(_seconds(run.figures["first"].get(name)) for name in _SHOWN)]]
    rows += [
        [change["change"], *(_seconds(change["found"][name]) for name in _SHOWN)] for change in run.figures["changes"]
    ]
    head = ["seconds of the processor (of the clock)", *_SHOWN.values()]
    return with_source(table(head, rows), run)


def _rows(found: dict[str, Any]) -> str:
    return f"{found['rows to the model']}" + ("" if found["as the corpus"] else " \\*")


def _seconds(found: dict[str, Any] | None) -> str:
    return f"{found['processor']:.1f} ({found['seconds']:.1f})" if found else "the same table"
