import os

import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.storage import Storage
from barycenter.tasks.planning.plan import check_output


def test_an_output_that_is_a_file_or_below_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    check_output(Storage(str(tmp_path / "new" / "folder")))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    with pytest.raises(JobError, match=r"output\.path: .*/file is a file; name a folder"):
        check_output(Storage(str(tmp_path / "file")))
    with pytest.raises(JobError, match=r"output\.path: .*lies below .*/file, which is no folder"):
        check_output(Storage(str(tmp_path / "file" / "out")))


def test_an_output_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(JobError, match=r"output\.path: .* may not be written to"):
        check_output(Storage(str(tmp_path / "out")))
