import json

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.versions.manifests import report_path
from barycenter.tasks.report.comparison.sides import Side, split_version


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("out@12", ("out", 12)),
        ("s3://user@host/out@2", ("s3://user@host/out", 2)),
        ("out@x", ("out@x", None)),
        ("out@1/", ("out", 1)),
        ("out/", ("out", None)),
        ("/", ("/", None)),
        ("@3", ("@3", None)),
    ],
)
def test_a_number_after_the_last_at_is_a_version(given, parts):
    assert split_version(given) == parts


def test_without_a_number_it_is_what_readers_see(outputs, keys, vectors):
    outputs.commit(keys, vectors)
    outputs.commit(keys, vectors + 1)
    side = Side.open(outputs.storage.root)
    assert side.manifest.number == 2
    assert side.name.endswith("out@2")
    assert Side.open(f"{outputs.storage.root}/").name == side.name
    assert Side.open(f"{outputs.storage.root}@1/").manifest.number == 1
    with pytest.raises(RunError, match="no version 9"):
        Side.open(f"{outputs.storage.root}@9")


@pytest.mark.parametrize("given", ["none", "none@1", "none@1/"])
def test_a_folder_that_is_not_there_is_said_to_be_that(tmp_path, given):
    with pytest.raises(RunError, match="there is no such folder, or it is empty; check the path"):
        Side.open(str(tmp_path / given))
    (tmp_path / "none").mkdir(exist_ok=True)
    (tmp_path / "none" / "progress.json").write_text("{}")
    with pytest.raises(RunError, match=r"^(?!.*no such folder).*(committed here yet|no version 1)"):
        Side.open(str(tmp_path / given))


def test_a_folder_of_that_very_name_is_meant(tmp_path, keys, vectors):
    from tests.tasks.report.comparison.conftest import Versions

    odd = Versions(tmp_path / "out@1")
    odd.commit(keys, vectors)
    odd.commit(keys, vectors + 1)
    assert Side.open(str(tmp_path / "out@1")).manifest.number == 2
    assert Side.open(f"{tmp_path / 'out@1'}/").manifest.number == 2
    assert Side.open(str(tmp_path / "out@1@1")).manifest.number == 1


def test_each_version_has_its_own_report(outputs, keys, vectors):
    first = outputs.commit(keys, vectors, report={"name": "first"})
    second = outputs.commit(keys, vectors + 1)
    assert first.report["name"] == "first"
    assert second.report is None
    outputs.storage.write("report/report.json", json.dumps({"version": "v2", "name": "newest"}).encode())
    assert Side.open(f"{outputs.storage.root}@2").report["name"] == "newest"
    outputs.storage.remove([report_path("v1")])
    assert Side.open(f"{outputs.storage.root}@1").report is None
