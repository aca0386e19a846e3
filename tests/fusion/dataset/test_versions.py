import shutil

import pytest

from barycenter.fusion.dataset import FusedDataset
from barycenter.fusion.errors import RunError
from tests.fusion.features_on_disk import write_features


@pytest.fixture
def out(tmp_path):
    write_features(tmp_path, [25, 13, 7, 31])
    return tmp_path


def test_versions_by_number_hash_and_file(tmp_path):
    write_features(tmp_path, [5], number=1, version="one")
    write_features(tmp_path, [8], number=2, version="two")
    assert FusedDataset(tmp_path).rows == 8
    assert FusedDataset(tmp_path, version=1).rows == 5
    assert FusedDataset(tmp_path, version="one").rows == 5
    assert FusedDataset(tmp_path / "manifests/1.json").rows == 5
    with pytest.raises(RunError, match="no version three"):
        FusedDataset(tmp_path, version="three")
    with pytest.raises(RunError, match=r"manifests/9.json: not there"):
        FusedDataset(tmp_path, version=9)


def test_a_stray_file_is_not_read_and_a_changed_one_refused(out):
    (stray,) = (out / "features/v1").glob("part-00000*")
    (out / "features/v1/part-99999.parquet").write_bytes(stray.read_bytes())
    assert FusedDataset(out).rows == 76
    stray.write_bytes((out / "features/v1/part-00001.parquet").read_bytes())
    with pytest.raises(RunError, match="13 rows, the manifest says 25"):
        FusedDataset(out)


def test_a_version_that_is_deleted_while_it_is_read_is_named(tmp_path):
    write_features(tmp_path, [400, 400], number=3)
    dataset = FusedDataset(tmp_path, batch_size=8)
    shutil.rmtree(tmp_path / "features")
    with pytest.raises(RunError, match=r"a file of version 3 is not there; .*barycenter pin .* 3"):
        list(dataset)


def test_an_empty_manifest_is_no_version(tmp_path):
    write_features(tmp_path, [4], number=1)
    (tmp_path / "manifests/2.json").touch()
    assert FusedDataset(tmp_path, version="v1").manifest.number == 1
    with pytest.raises(RunError, match=r"manifests/2.json: not there"):
        FusedDataset(tmp_path, version=2)
