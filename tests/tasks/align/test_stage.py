"""What a fit says of itself."""

import pytest

from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "pca"}, []),
        ({"method": "pca", "dim": 5}, ["alignment.dim 5 was clipped to 2, the rank of the data"]),
        ({"method": "auto", "dim": 9}, ["alignment.dim 9 was clipped to 4, the rank of the data"]),
        ({"method": "pca", "dim": 2}, []),
    ],
)
def test_a_dim_above_the_rank_is_one_warning_where_the_job_asks_for_it(tmp_path, settings, said):
    """Methods that were only tried have nothing to say; the default dim is nobody's wish."""
    rows = [row | {"vec": row["vec"][:2], "other": row["vec"][2:4]} for row in text_and_vector_rows(60)]
    rows = [row | {key: [*row[key], *row[key], 2 * row[key][0]] for key in ("vec", "other")} for row in rows]
    corpus = write_lines(tmp_path / "rows.jsonl", rows)
    job = text_and_vector_job(corpus, tmp_path / "out", "dims")
    job["inputs"] = {name: {"kind": "vector", "column": name} for name in ("vec", "other")}
    job["alignment"] = settings
    warnings = run_here(job)["warnings"]
    assert [line for line in warnings if "dim" in line and "directions" not in line] == said, warnings
