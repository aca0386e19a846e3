"""Which rows are held out: splits and folds that depend on a key alone, never on order or on the run."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test", "other"]
"""What a row is for; rows of other splits, as validation, are left alone."""

TEST_FRACTION = 0.2

_NAMES: dict[str, Split] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_TEST_SALT = "test"
_FOLD_SALT = "fold"


def stable_hash(values: Iterable[object], salt: str = "") -> NDArray[np.uint64]:
    """64-bit BLAKE2b hashes of the text of each value, the same on every machine.

    Args:
        values: n values; each is hashed through ``str``.
        salt: At most 16 bytes; different salts give independent hashes.

    Returns:
        (n,) unsigned 64-bit integers.

    >>> stable_hash(["a", "b"], salt="fold").tolist() == stable_hash(["a", "b"], salt="fold").tolist()
    True
    """
    digests = [
        hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.encode()).digest()
        for value in values
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def split_of(name: object) -> Split:
    """The part that a value of a split column names: ``train``, ``test``, or neither, as validation rows and nulls.

    >>> [split_of(name) for name in ("Train", "test", "validation", None)]
    ['train', 'test', 'other', 'other']
    """
    return _NAMES.get(name.strip().lower(), "other") if isinstance(name, str) else "other"


def split_rows(
    groups: Sequence[object], names: Iterable[object] | None = None, test_fraction: float = TEST_FRACTION
) -> NDArray[np.str_]:
    """(n,) ``train``, ``test`` or ``other``: by a split column where there is one, else by a hash of the groups.

    Args:
        groups: n values; rows with equal ones are hashed into the same split.
        names: n values of the split column.
        test_fraction: About this share of the groups are test rows, in 0..1.

    >>> split_rows(["a", "a", "b"], test_fraction=0.5)[:2].tolist() in (["test"] * 2, ["train"] * 2)
    True
    """
    if names is not None:
        return np.array([split_of(name) for name in names], dtype="U5")
    limit = np.uint64(min(test_fraction * 2.0**64, 2.0**64 - 1025))
    return np.where(stable_hash(groups, _TEST_SALT) < limit, "test", "train")


def fold_of(groups: Iterable[object], folds: int) -> NDArray[np.int64]:
    """Assigns every row to one of ``folds`` cross-validation folds, equal groups to the same fold.

    Returns:
        (n,) fold numbers in 0..folds-1.
    """
    return (stable_hash(groups, _FOLD_SALT) % np.uint64(folds)).astype(np.int64)
