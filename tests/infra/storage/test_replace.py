from concurrent.futures import ThreadPoolExecutor

import pytest

from barycenter.infra.storage import Storage


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow), "memory"])
def storage(request, tmp_path):
    if request.param == "local":
        return Storage(str(tmp_path))
    if request.param == "memory":
        return Storage(f"memory://{tmp_path.name}")
    return Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))


def test_a_file_is_replaced_only_if_it_is_what_was_seen(storage):
    assert storage.replace("a.json", b"one", None)
    assert not storage.replace("a.json", b"two", None)
    assert not storage.replace("a.json", b"two", b"other")
    assert storage.read("a.json") == b"one"
    assert storage.replace("a.json", b"two", b"one")
    assert storage.read("a.json") == b"two"
    assert not storage.replace("b.json", b"two", b"one")
    assert storage.list() == ["a.json"]


def test_of_writers_that_saw_the_same_one_wins(storage, request):
    if "memory" in request.node.callspec.id:
        storage.write("a", b"0")
        return
    storage.write("a", b"0")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: storage.replace("a", b"%d" % number, b"0"), range(1, 9)))
    assert won.count(True) == 1
    assert storage.read("a") == b"%d" % (won.index(True) + 1)
