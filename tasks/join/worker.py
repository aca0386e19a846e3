"""What the workers of the join do: tables to buckets, buckets to files. Imports neither Prefect nor Ray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.infra.corpus.join.buckets import join_bucket
from barycenter.infra.corpus.join.partition import Join, Unit, partition_unit
from barycenter.infra.storage import Storage


class SpillWorker:
    """Cuts units of tables by the hash of the key."""

    def __init__(self, join: Join, storage: Storage) -> None:
        self.join, self.storage = join, storage

    def run(self, payload: Unit) -> NDArray[np.int64]:
        """Writes the unit's rows into their buckets and returns the bytes put into each."""
        return partition_unit(self.join, self.storage, payload)


class BucketWorker:
    """Joins buckets."""

    def __init__(self, join: Join, storage: Storage, spilled: Sequence[Sequence[str]]) -> None:
        self.join, self.storage, self.spilled = join, storage, spilled

    def run(self, payload: int) -> dict[str, Any]:
        """Name, rows and bytes of the bucket's file."""
        return join_bucket(self.join, self.storage, self.spilled, payload)
