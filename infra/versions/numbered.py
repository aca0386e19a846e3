"""Files whose names are numbers: the terms, manifests, promotions and pins of an output."""

from barycenter.infra.storage import Storage


def numbered_path(folder: str, number: int) -> str:
    """Where file ``number`` of a folder lies.

    >>> numbered_path("manifests", 3)
    'manifests/3.json'
    """
    return f"{folder}/{number}.json"


def numbered_files(storage: Storage, folder: str) -> dict[int, int]:
    """Bytes of every such file by its number, ascending, from one listing; other names are passed over."""
    names = (
        (path.removeprefix(f"{folder}/").removesuffix(".json"), size) for path, size in storage.sizes(folder).items()
    )
    return dict(sorted((int(name), size) for name, size in names if name.isdecimal() and str(int(name)) == name))
