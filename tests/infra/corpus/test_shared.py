"""Real corpora, read in place."""

from pathlib import Path

import pytest

from barycenter.infra.corpus import Pictures
from tests.infra.corpus.helpers import opened, read

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(("name", "rows"), [("emojitwo", 2008), ("grocery", 3584), ("recipes", 138)])
def test_every_row_has_its_picture(shared: Path, name: str, rows: int) -> None:
    corpus = opened(shared / "data" / name, key="id", rows=500)
    values = read(corpus, ["text", "image", "label"], 500)
    assert len(set(values[""])) == rows
    assert set(values["__bad__"]) == {None}
    pictures = Pictures(corpus.root)
    assert all(pictures.find(value).size for value in values["image"])
    assert pictures.find(values["image"][0]).read()


def test_csv_with_quoted_line_ends(shared: Path) -> None:
    corpus = opened(shared / "data/banking77/banking_data/t*.csv", rows=1000)
    values = read(corpus, ["text", "category"], 1000)
    assert [(source.relative, source.rows) for source in corpus.sources] == [("test.csv", 3080), ("train.csv", 10003)]
    assert len(set(values["category"])) == 77
    assert set(values["__bad__"]) == {None}


def test_a_folder_of_photographs(shared: Path) -> None:
    values = read(opened(shared / "data/smoke_photos"), ["image"])
    assert values[""] == ["cat_720p.jpg", "hot_dog.jpg", "owl.jpg", "parrot.jpg"]
