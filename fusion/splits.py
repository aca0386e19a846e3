"""Which rows are held out: splits and folds that depend on a key alone, never on order or on the run."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

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


def is_test(groups: Iterable[object], fraction: float) -> NDArray[np.bool_]:
    """Marks about ``fraction`` of the groups as test rows; equal groups always fall on the same side.

    >>> is_test(["a", "a", "b"], 0.5)[:2].tolist() in ([True, True], [False, False])
    True
    """
    return stable_hash(groups, _TEST_SALT) < np.uint64(min(fraction * 2.0**64, 2.0**64 - 1025))


def fold_of(groups: Iterable[object], folds: int) -> NDArray[np.int64]:
    """Assigns every row to one of ``folds`` cross-validation folds, equal groups to the same fold.

    Returns:
        (n,) fold numbers in 0..folds-1.
    """
    return (stable_hash(groups, _FOLD_SALT) % np.uint64(folds)).astype(np.int64)
