"""The rows that are wrong: figures and keys for report.json, and what they hold for the page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from barycenter.fusion.evaluation.mistakes import Predictions, mistakes
from barycenter.fusion.heads.targets import plain
from barycenter.tasks.data.rows import evenly_spaced
from barycenter.tasks.report.examples import ShownRows, label_text, row_contents
from barycenter.tasks.run.context import Run

_ERRORS, _DOUBTFUL, _POINTS = 12, 20, 2000


def mistakes_section(
    predictions: Predictions, keys: Sequence[str | None], groups: Sequence[str | None], *, crossed: bool
) -> dict[str, Any]:
    """The ``mistakes`` of report.json.

    Args:
        predictions: Of rows that the model did not learn from.
        keys: Key of each row that the predictions number.
        groups: Group of each; of near-copies one error is named.
        crossed: Whether they were made out of fold.

    Returns:
        What :func:`barycenter.fusion.evaluation.mistakes.mistakes` counts; ``task``; ``how``, ``out of fold`` or ``held
        out``; ``worst``: [{key, label, predicted, certainty}], the most confident errors, of a regression the largest
        residuals with ``residual``; ``doubtful`` {n, rows: [{key, label, probability, predicted}]}, labels that
        should be looked at.
    """
    doubtful = predictions.doubtful()
    return {
        "task": predictions.task,
        "how": "out of fold" if crossed else "held out",
        **mistakes(predictions),
        "worst": [_line(predictions, keys, at) for at in predictions.most_confident_errors(_ERRORS, groups)],
        "doubtful": {
            "n": len(doubtful),
            "rows": [_line(predictions, keys, at) for at in doubtful[:_DOUBTFUL]],
        },
    }


def error_examples(run: Run, shown: ShownRows, predictions: Predictions) -> list[dict[str, Any]]:
    """The rows of ``mistakes.worst`` as people see them.

    Returns:
        ``[{key, text, label, thumbnail, predicted, certainty | residual, part}]``.
    """
    worst = predictions.most_confident_errors(_ERRORS, shown.groups)
    contents = row_contents(run, shown, sorted(int(predictions.rows[at]) for at in worst))
    examples = []
    for at in worst:
        line = _line(predictions, shown.keys, at)
        words = {"predicted": label_text(predictions.predicted[at]) or "nothing"}
        figures = {name: line[name] for name in ("certainty", "residual", "part") if name in line}
        examples.append(contents[int(predictions.rows[at])] | words | figures)
    return examples


def residual_points(predictions: Predictions) -> dict[str, Any]:
    """Predictions and residuals of evenly spaced rows of a regression, for the figure; nothing of other tasks."""
    if predictions.task != "regression":
        return {}
    order = evenly_spaced(np.argsort(predictions.rows, kind="stable").tolist(), _POINTS)
    predicted, residuals = predictions.predicted.astype(np.float64)[order], predictions.residuals[order]
    return {"predicted": [_rounded(value) for value in predicted], "residual": [_rounded(value) for value in residuals]}


def _line(predictions: Predictions, keys: Sequence[str | None], at: int) -> dict[str, Any]:
    """One row: what it says, what was predicted, and how sure the model was."""
    label, predicted = predictions.labels[at], predictions.predicted[at]
    line: dict[str, Any] = {
        "key": keys[int(predictions.rows[at])],
        "label": _value(label),
        "predicted": _value(predicted),
    }
    if predictions.task == "regression":
        return line | {"residual": _rounded(predictions.residuals[at])}
    line |= {"certainty": _share(predictions.certainty[at]), "probability": _share(predictions.own[at])}
    return line if predictions.part[at] is None else line | {"part": _value(predictions.part[at])}


def _value(value: Any) -> Any:
    """A label as JSON holds it."""
    if isinstance(value, list | tuple | set | np.ndarray):
        return sorted((_value(part) for part in value), key=str)
    value = plain(value)
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _share(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
