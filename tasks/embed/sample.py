"""Before the work: how much of it a sample says is done already, row by row."""

from collections.abc import Sequence

import pyarrow as pa

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus import Shard
from barycenter.infra.versions.digest_index import DigestIndex
from barycenter.tasks.embed.stage import input_columns
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import encoding_id
from barycenter.tasks.run.input_values import InputValues
from barycenter.tasks.run.row_digests import DIGEST

_SHARDS = 4


def count_known(run: Run, name: str, shards: Sequence[Shard]) -> int:
    """How many of the rows of some shards have contents that this output holds vectors of, by some of the shards.

    Reads the rows and where their pictures are, but no picture, and writes nothing. A vector input has nothing to save.
    """
    if not shards or run.specs[name].kind == "vector":
        return 0
    try:
        index = DigestIndex(run.storage, encoding_id(run, name))
    except (RunError, ValueError, KeyError, TypeError):  # damaged: the run makes it again
        return 0
    if not index.rows:
        return 0
    chosen = shards[:: max(1, len(shards) // _SHARDS)][:_SHARDS]
    columns = input_columns(run, name)
    wanted = [*columns.names, *([columns.weights] if columns.weights is not None else [])]
    found = 0
    for shard in chosen:
        inputs = InputValues(run.corpus.read(shard, wanted), columns, shard.folder)
        digests = inputs.digests() if inputs.pictures is None else inputs.seen()
        found += len(index.find(pa.array(digests, DIGEST)))
    return round(found / max(1, sum(shard.rows for shard in chosen)) * sum(shard.rows for shard in shards))
