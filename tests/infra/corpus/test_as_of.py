"""A corpus as it was on a day: what is in its dated partitions up to that day, and nothing else."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus import Corpus, open_corpus
from barycenter.infra.job.models import CorpusJob, LimitsJob
from tests.infra.corpus.helpers import jsonl, read

DAY = date(2024, 1, 31)


def opened(path: Path, day: date | None = DAY) -> Corpus:
    return open_corpus(CorpusJob(path=str(path), key="id", rows_per_shard=2), LimitsJob(), as_of=day)


def write(path: Path, *ids: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(jsonl({"id": name} for name in ids))


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    for day, ids in (("2023-12-31", "ab"), ("2024-01-31", "cde"), ("2024-02-01", "f")):
        write(tmp_path / "lang=en" / f"date={day}" / "part.jsonl", *ids)
    (tmp_path / "README.md").write_text("not a part of the corpus")
    return tmp_path


def test_partitions_up_to_the_day_are_taken_and_the_others_counted(dated: Path) -> None:
    corpus = opened(dated)
    assert read(corpus, ["date"])["date"] == ["2023-12-31"] * 2 + ["2024-01-31"] * 3
    assert corpus.listing["files"] == {"taken": 2, "passed_over": {"after_the_date": 1, "other_format": 1}}


def test_shards_are_those_that_the_corpus_had_then(dated: Path) -> None:
    then = [shard.id for shard in opened(dated).shards(2)]
    assert then == [shard.id for shard in opened(dated, None).shards(2)][:3]
    shutil.rmtree(dated / "lang=en" / "date=2024-02-01")
    assert then == [shard.id for shard in opened(dated, None).shards(2)]


def test_the_day_is_that_of_the_partition_and_not_of_other_columns(dated: Path) -> None:
    write(dated / "lang=2020-01-01" / "date=2024-03-01" / "part.jsonl", "g")
    assert len(opened(dated).sources) == 2


def refusal(path: Path, day: date = DAY) -> str:
    with pytest.raises(JobError) as caught:
        opened(path, day)
    return str(caught.value)


@pytest.mark.parametrize("folder", ["", "date=__HIVE_DEFAULT_PARTITION__", "date=2024", "day-2024-01-31"])
def test_a_file_without_a_date_is_named(dated: Path, folder: str) -> None:
    write(dated / "other" / folder / "part.jsonl", "h")
    line = refusal(dated)
    assert line.startswith(f"corpus.path: {dated} is not partitioned by a date")
    assert f"{Path('other') / folder / 'part.jsonl'} does not" in line


def test_files_with_different_dates_have_none_in_common(tmp_path: Path) -> None:
    write(tmp_path / "date=2024-01-31" / "a.jsonl", "a")
    write(tmp_path / "day=2024-01-31" / "b.jsonl", "b")
    assert "is not partitioned by a date" in refusal(tmp_path)


def test_two_dates_are_one_too_many(tmp_path: Path) -> None:
    write(tmp_path / "date=2024-01-31" / "loaded=2024-02-01" / "a.jsonl", "a")
    assert refusal(tmp_path) == (
        f"corpus.path: {tmp_path} is partitioned by several dates (date, loaded); as_of needs exactly one"
    )


def test_a_day_before_all_of_them(dated: Path) -> None:
    assert refusal(dated, date(2020, 1, 1)) == (
        f"as_of: {dated} has no partition up to 2020-01-01; the first is of 2023-12-31"
    )
