from barycenter.tasks.report.rendering.mistake_tables import confusion, doubtful_sheet, label_sheet, pair_sheet


def test_cells_are_shares_of_their_line(report):
    found = confusion(report)
    assert found["labels"] == ["party", "winter dots"]
    first, second = found["rows"]
    assert [cell["count"] for cell in first["cells"]] == ["642", "273"]
    assert [cell["share"] for cell in first["cells"]] == [70, 30]
    assert [cell["right"] for cell in second["cells"]] == [False, True]
    assert second["total"] == "900"


def test_a_matrix_that_is_not_whole_is_left_out(report):
    matrix = report["mistakes"]["confusion"]
    for counts in ([[1, 2]], [[1], [2]], [[1, None], [2, 3]], None, []):
        matrix["counts"] = counts
        assert confusion(report) is None
    assert confusion({}) is None


def test_the_line_of_rare_labels_is_other(report):
    report["mistakes"]["confusion"] = {"labels": ["a", None], "counts": [[0, 0], [3, 4]]}
    found = confusion(report)
    assert found["labels"] == ["a", "other"]
    assert [cell["share"] for cell in found["rows"][0]["cells"]] == [0, 0]


def test_each_label_has_recall_and_precision(report):
    sheet = label_sheet(report)
    assert sheet.rows[0] == ("winter dots", "900", "850", "70.0", "74.1")
    assert sheet.rows[1][3] == "–"
    line = {"label": "x", "n": 4, "predicted": 2, "recall": 0.5, "precision": 1.0, "f1": 2 / 3}
    report["mistakes"] = {"task": "multilabel", "labels": [line] * 40}
    several = label_sheet(report)
    assert several.title == "Each label, the 30 most frequent"
    assert several.header[-1] == "F1, %"
    assert several.rows[0] == ("x", "4", "2", "50.0", "100.0", "66.7")


def test_pairs_and_doubtful_rows(report):
    assert pair_sheet(report).rows == [("party", "winter dots", "273")]
    sheet = doubtful_sheet(report)
    assert sheet.title == "Look at these, 1 of 31"
    assert sheet.rows == [("item-9", "party", "winter dots", "0.4")]
    assert "a model can be wrong" in sheet.meaning


def test_of_numbers_the_residual_is_shown(report):
    row = {"key": "k", "label": 12.5, "predicted": 40.123456, "residual": -27.623456}
    report["mistakes"] = {"task": "regression", "doubtful": {"n": 1, "rows": [row]}}
    sheet = doubtful_sheet(report)
    assert sheet.header[-1] == "residual"
    assert sheet.rows == [("k", "12.5", "40.12", "-27.62")]
    assert confusion(report) is None
    assert not label_sheet(report).rows
