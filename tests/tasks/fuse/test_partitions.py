import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.dataset.schema import FeatureFile
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.tasks.fuse import partitions as module
from barycenter.tasks.fuse.partitions import check_folders, sample_partitions
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.context import Run

NULL_NAME = "__HIVE_DEFAULT_PARTITION__"


def job_of(tmp_path, array, name="p", *, partition=True):
    rows = len(array)
    table = pa.table({"id": [str(i) for i in range(rows)], "vec": [[float(i), 1.0] for i in range(rows)], name: array})
    pq.write_table(table, tmp_path / "rows.parquet")
    return Job.model_validate(
        {
            "corpus": {"path": str(tmp_path / "rows.parquet"), "key": "id", "keep": [name], "rows_per_shard": 4},
            "inputs": {"vec": {"kind": "vector", "column": "vec"}},
            "alignment": {"method": "none"},
            "average": {"method": "mean"},
            "output": {"path": str(tmp_path / "out"), "partition_by": [name] if partition else []},
        }
    )


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (pa.array([datetime.datetime(2024, 1, 1)]), "'p' is timestamp.us."),
        (pa.array([Decimal("1.50")]), "'p' is decimal128"),
        (pa.array([b"x"]), "'p' is binary"),
        (pa.array([datetime.time(1)]), "'p' is time64"),
        (pa.array([datetime.timedelta(1)]), "'p' is duration"),
        (pa.array([["a"]]), "'p' is list"),
        (pa.array([{"a": 1}]), "'p' is struct"),
        (pa.array([NULL_NAME, "a"]), f"'p' has the value '{NULL_NAME}', which readers take for null"),
        (pa.array(["本" * 100]), "the value '本+' of 'p' makes a folder name of 302 bytes"),
        (pa.array(["007", "12"]), "all values of 'p' look like whole numbers.*'007' for 7"),
        (pa.array(["0x1F", "12"]), "all values of 'p' look like whole numbers.*'0x1F' for 31"),
        (pa.array([str(i) + "x" for i in range(1001)]), "p has 1001 values or more"),
    ],
)
def test_what_cannot_be_a_folder_is_refused_before_the_work(tmp_path, array, problem):
    with pytest.raises(JobError, match=problem) as caught:
        prepare(job_of(tmp_path, array))
    assert caught.value.key == "output.partition_by"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["_year", ".x", "a/b", "a=b", "a%41", "a\\b", "a\tb"])
def test_a_column_name_that_readers_do_not_see_is_refused(tmp_path, name):
    with pytest.raises(JobError, match="rename the column") as caught:
        prepare(job_of(tmp_path, pa.array(["a", "b"]), name))
    assert caught.value.key == "output.partition_by"


def test_a_value_that_stands_late_in_the_sample_is_refused_too(tmp_path):
    with pytest.raises(JobError, match=NULL_NAME):
        prepare(job_of(tmp_path, pa.array(["a"] * 30 + [NULL_NAME])))


@pytest.mark.parametrize(
    ("array", "inside"),
    [
        (pa.array(["a", None]), ["p"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["p"]),
        (pa.array(["a"], pa.large_string()), ["p"]),
        (pa.array([None], pa.string()), ["p"]),
        (pa.array(["2023", "2024"]), []),
        (pa.array([1, None]), []),
        (pa.array([1.5, float("nan")]), []),
        (pa.array([datetime.date(2024, 1, 1)]), []),
        (pa.array([True, False]), []),
    ],
)
def test_text_stands_in_the_files_as_well(tmp_path, array, inside):
    found = sample_partitions(Run(job_of(tmp_path, array)))
    assert [field.name for field in found.fields] == inside
    assert (found.count, list(found.types)) == (len(array.unique()), ["p"])


class Folding(Storage):
    is_case_insensitive = True


def files(*values):
    return [FeatureFile("", 0, partition={"p": value}) for value in values]


def test_values_that_differ_in_case_meet_on_some_file_systems_only(tmp_path, monkeypatch):
    run = Run(job_of(tmp_path, pa.array(["US", "us"])))
    assert sample_partitions(run).count == 2
    check_folders(Storage(str(tmp_path)), files("US", "us"), {"p": "string"}, ["p"])
    run.storage, run.partitions = Folding(str(tmp_path)), None
    with pytest.raises(JobError, match="'US' and 'us' of 'p' are one folder on the file system of"):
        sample_partitions(run)
    for pair in (("US", "us"), ("é", "e\u0301"), ("straße", "STRASSE")):
        with pytest.raises(RunError, match=r"are one folder.*nothing was committed"):
            check_folders(run.storage, files(*pair, "x"), {"p": "string"}, ["p"])
    check_folders(run.storage, files("a", None, "p"), {"p": "string"}, ["p"])


def test_values_found_late_are_refused_before_the_commit(tmp_path):
    storage = Storage(str(tmp_path))
    check_folders(storage, files("12", "7", "x"), {"p": "string"}, ["p"])
    with pytest.raises(RunError, match=r"output.partition_by: all values of 'p' look like whole numbers"):
        check_folders(storage, files("12", "07"), {"p": "string"}, [])


def test_texts_of_which_only_digits_were_written_are_refused(tmp_path):
    storage = Storage(str(tmp_path))
    with pytest.raises(RunError, match="readers take the folders of 'p' that were written for numbers"):
        check_folders(storage, files("12", "7"), {"p": "string"}, ["p"])
    with pytest.raises(RunError, match="readers take the folders of 'p' that were written for text"):
        check_folders(storage, files("12", "x"), {"p": "string"}, [])
    check_folders(storage, files("12", "7"), {"p": "string"}, [])


def test_numbers_that_are_all_null_make_no_folder_that_readers_see(tmp_path):
    with pytest.raises(JobError, match="all values of 'p' are null"):
        prepare(job_of(tmp_path, pa.array([None, None], pa.int32())))
    with pytest.raises(RunError, match="all values of 'p' are null"):
        check_folders(Storage(str(tmp_path)), files(None), {"p": "int32"}, [])


def test_nulls_of_a_column_that_is_called_like_a_split_are_refused(tmp_path):
    for name in ("test", "is train", "val"):
        with pytest.raises(JobError, match="which Hugging Face's datasets take for a split"):
            prepare(job_of(tmp_path, pa.array(["a", None]), name))
        prepare(job_of(tmp_path, pa.array(["a", "b"]), name))
    prepare(job_of(tmp_path, pa.array(["a", None]), "contest"))


def test_a_folder_knows_whether_its_file_system_folds_case(tmp_path):
    (tmp_path / "Probe").mkdir()
    assert Storage(str(tmp_path / "Probe" / "new")).is_case_insensitive == (tmp_path / "pROBE").exists()
    assert not Storage("memory://x").is_case_insensitive


def test_the_sample_is_spread_over_the_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE_ROWS", 8)
    run = Run(job_of(tmp_path, pa.array([f"v{i // 4}" for i in range(40)])))
    assert sample_partitions(run).count == 10
