import base64
import io

import numpy as np
import pytest
from PIL import Image

from barycenter.tasks.report.examples import ShownRows, neighbor_examples, project_to_plane


@pytest.fixture
def shown(run):
    """Class 0 looks one way and class 1 another; rows 50 and 51 look like the other class; row 3 has no vector."""
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    look = label.copy()
    look[[50, 51]] = 1 - look[[50, 51]]
    fused = (np.eye(2)[look] @ rng.normal(size=(2, 8)) + 0.05 * rng.normal(size=(60, 8))).astype(np.float32)
    fused[3] = np.nan
    labels = np.array([f"c{value}" for value in label], dtype=object)
    labels[10] = None
    groups = [f"g{row // 2 % 30}" for row in range(60)]
    return ShownRows(run.shards, [f"k{row}" for row in range(60)], fused, labels, groups, np.arange(60) >= 40)


def test_good_and_bad_cases_are_reported_apart(run, shown):
    cases, figures = neighbor_examples(run, shown)
    assert figures["n"] == 20
    assert (figures["good"], figures["bad"]) == (18, 2)
    assert figures["share"] == pytest.approx(0.9, abs=0.03)
    assert [case["key"] for case in cases if not case["good"]] == ["k50", "k51"]
    assert len([case for case in cases if case["good"]]) == 4


def test_neighbors_are_the_nearest_of_other_groups(run, shown):
    cases, _ = neighbor_examples(run, shown)
    unit = shown.fused / np.linalg.norm(shown.fused, axis=1, keepdims=True)
    for case in cases:
        row = int(case["key"][1:])
        similarity = np.nan_to_num(unit @ unit[row], nan=-2.0)
        similarity[[other for other in range(60) if shown.groups[other] == shown.groups[row]]] = -2.0
        nearest = np.argsort(-similarity, kind="stable")[:5]
        assert [found["key"] for found in case["neighbors"]] == [f"k{other}" for other in nearest]
        assert all(found["text"] == f"row {found['key'][1:]}" for found in case["neighbors"])
        for found in case["neighbors"]:
            assert found.get("label") == (None if found["key"] == "k10" else f"c{int(found['key'][1:]) % 2}")


def test_thumbnails_are_small_pictures_of_their_row(run, shown):
    cases, _ = neighbor_examples(run, shown)
    for row in [row for case in cases for row in (case, *case["neighbors"])]:
        if row["key"] == "k7":
            assert "thumbnail" not in row
            continue
        content = base64.b64decode(row["thumbnail"])
        picture = Image.open(io.BytesIO(content))
        assert (picture.format, picture.size) == ("JPEG", (112, 56))
        assert len(content) < 2000
        assert abs(picture.getpixel((50, 30))[0] - 4 * int(row["key"][1:])) < 8


def test_without_a_target_no_case_is_good_or_bad(run, shown):
    without = ShownRows(shown.shards, shown.keys, shown.fused, None, shown.groups, shown.queries)
    cases, figures = neighbor_examples(run, without)
    assert len(cases) == 4
    assert all("good" not in case and "label" not in case for case in cases)
    assert figures == {"n": 20}


def test_the_map_holds_rows_that_have_a_vector(shown):
    found = project_to_plane(shown)
    assert found["method"] in ("PCA", "UMAP")
    assert len(found["x"]) == len(found["y"]) == len(found["label"]) == 59
    assert found["label"].count(None) == 1
    assert found == project_to_plane(shown)


def test_one_dimension_and_two_rows_are_drawn_or_left_out(run, shown):
    line = ShownRows(shown.shards, shown.keys, shown.fused[:, :1], shown.labels, shown.groups, shown.queries)
    assert len(project_to_plane(line)["y"]) == 59
    few = np.full_like(shown.fused, np.nan)
    few[:2] = shown.fused[:2]
    empty = ShownRows(shown.shards, shown.keys, few, shown.labels, shown.groups, shown.queries)
    assert project_to_plane(empty) == {}
    assert neighbor_examples(run, empty) == ([], {"n": 0})


def test_of_numbers_the_difference_counts_and_no_label_is_shared(run, shown):
    numbers = np.array([float(row) for row in range(60)], dtype=object)
    numbers[10] = None
    priced = ShownRows(run.shards, shown.keys, shown.fused, numbers, shown.groups, shown.queries)
    cases, figures = neighbor_examples(run, priced)
    off = [
        abs(int(case["key"][1:]) - np.mean([float(near["label"]) for near in case["neighbors"] if "label" in near]))
        for case in cases
    ]
    assert "share" not in figures
    assert figures["spread"] == pytest.approx(np.std([row for row in range(60) if row != 10]))
    assert all(
        (error <= 0.2 * figures["spread"] + 1e-9) == case["good"] for error, case in zip(off, cases, strict=True)
    )
    assert 0 < figures["difference"] < 60
    found = project_to_plane(priced)
    assert found["value"].count(None) == 1
    assert sorted(value for value in found["value"] if value is not None)[:2] == [0.0, 1.0]
    assert "value" not in project_to_plane(shown)
