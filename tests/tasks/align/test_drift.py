import numpy as np

from barycenter.tasks.align.drift import measure_drift


def aligned(rng, count, correlation=0.8, shift=0.0, dim=4):
    """Two aligned inputs whose components correlate, every third row without the second."""
    shared = rng.normal(size=(count, dim))
    noise = rng.normal(size=(2, count, dim))
    one, other = (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * part for part in noise)
    other = other + shift
    other[::3] = np.nan
    return {"text": one.astype(np.float32), "image": other.astype(np.float32)}


HELDOUT = [0.8, 0.8, 0.8, 0.8]


def test_rows_of_the_same_kind_are_no_drift():
    rng = np.random.default_rng(0)
    for count in (15, 200, 3000):
        figures, warnings = measure_drift(aligned(rng, 2000), aligned(rng, count), HELDOUT)
        assert warnings == []
    assert figures["rows_compared"] == 3000
    assert abs(figures["correlation"]["new"] - 0.8) < 0.05
    assert figures["mean_shift"].keys() == {"text", "image"}
    assert max(figures["mean_shift"].values()) < 0.1


def test_a_shifted_input_is_named():
    rng = np.random.default_rng(1)
    figures, warnings = measure_drift(aligned(rng, 2000), aligned(rng, 500, shift=1.0), HELDOUT)
    assert 0.8 < figures["mean_shift"]["image"] < 1.2
    assert len(warnings) == 1
    assert "mean of image" in warnings[0]
    assert "--refit" in warnings[0]


def test_inputs_that_no_longer_go_together_are_reported():
    rng = np.random.default_rng(2)
    figures, warnings = measure_drift(aligned(rng, 2000), aligned(rng, 500, correlation=0.3), HELDOUT)
    assert len(warnings) == 1
    assert figures["correlation"]["new"] < 0.4
    assert "correlate at" in warnings[0]
    assert measure_drift(aligned(rng, 2000), aligned(rng, 500, correlation=0.3), [float("nan")] * 4)[1] == []


def test_a_single_input_and_empty_sides_are_no_trouble():
    rng = np.random.default_rng(3)
    one = {"text": aligned(rng, 50)["text"]}
    nothing = {"text": np.full((5, 4), np.nan, np.float32)}
    assert measure_drift(one, one, [])[1] == []
    assert measure_drift(one, nothing, [])[0] == {"mean_shift": {}, "rows_compared": 0}
