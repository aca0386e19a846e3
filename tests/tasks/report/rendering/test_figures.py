import io
import warnings

import numpy as np
import pytest
from PIL import Image

from barycenter.tasks.report.rendering.figures import plots

NAMES = ("probe", "correlations", "retrieval", "dimensions", "learning", "residuals", "map")


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float)


def test_each_figure_on_a_light_and_a_dark_ground(images):
    assert set(images) == {f"{name}{suffix}.png" for name in NAMES for suffix in ("", "-dark")}
    for name in NAMES:
        light, dark = opened(images[f"{name}.png"]), opened(images[f"{name}-dark.png"])
        assert light.shape == dark.shape
        assert light.shape[1] == 920
        assert light[0, 0].mean() > 250
        assert dark[0, 0].mean() < 50
        assert light.std() > 5


def test_same_report_same_bytes(report, samples, images):
    assert plots(report, samples) == images


@pytest.mark.parametrize(
    ("path", "figure"),
    [
        (("probe", "candidates"), "probe"),
        (("alignment", "test_correlations"), "correlations"),
        (("retrieval", "text->image"), "retrieval"),
        (("probe", "dimensions"), "dimensions"),
        (("probe", "learning"), "learning"),
    ],
)
def test_what_is_absent_is_not_drawn(report, path, figure):
    first, second = path
    assert f"{figure}.png" in plots({first: report[first]})
    assert f"{figure}.png" not in plots({first: {}})
    if figure == "correlations":
        del report[first]["heldout_correlations"]
    if figure == "retrieval":
        report["retrieval"] = {"chance_r10": 0.1}
    elif figure == "probe":
        report["probe"] = {"candidates": {"fused": {"complete": None}}}
    else:
        report[first][second] = []
    assert f"{figure}.png" not in plots({first: report[first]})


def test_without_points_there_is_no_map(samples):
    assert set(plots({}, samples)) == {"map.png", "map-dark.png", "residuals.png", "residuals-dark.png"}
    assert plots({}, {"map": {"x": [], "y": []}, "residuals": {"predicted": [], "residual": []}}) == plots({}) == {}


def test_odd_figures_are_drawn_without_a_word(report, samples):
    report["alignment"]["test_correlations"] = [float("nan"), 0.5, -0.2, *[0.1] * 60]
    report["probe"]["candidates"] = {"a": {"complete": -3.0}, "fused": {"complete": 0.0}}
    report["probe"] |= {"metric": "r2", "cross_validated": None}
    samples["map"]["label"] = ["$\\frac{", "👩‍👩‍👧 \u202eمرحبا\ud800", "x" * 10_000] * 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(plots(report, samples)) == 14


def test_a_target_of_numbers_is_a_scale_and_no_legend(samples):
    del samples["residuals"]
    samples["map"]["value"] = [float(number) for number in range(58, -1, -1)] + [None]
    other = plots({}, samples)["map.png"]
    samples["map"]["value"] = [float(number) for number in range(59)] + [None]
    by_value = plots({}, samples)["map.png"]
    assert by_value != other
    samples["map"]["label"] = [None] * 60
    assert plots({}, samples)["map.png"] == by_value


def test_no_tick_is_above_one_hundred_per_cent():
    from barycenter.tasks.report.rendering.drawing import LIGHT
    from barycenter.tasks.report.rendering.figures import _FIGURES

    points = [{"dim": dim, "complete": score, "low": score - 0.01, "high": 1.0} for dim, score in ((4, 0.97), (8, 1.0))]
    candidates = {"fused": {"complete": 1.0}, "concat": {"complete": 0.99}}
    report = {"probe": {"metric": "accuracy", "candidates": candidates, "dimensions": points}}
    for name, axis in (("dimensions", "get_yticks"), ("probe", "get_xticks")):
        (axes,) = _FIGURES[name](report, LIGHT).axes
        low, high = axes.get_ylim() if axis == "get_yticks" else axes.get_xlim()
        shown = [tick for tick in getattr(axes, axis)() if low <= tick <= high]
        assert max(shown) == 100
