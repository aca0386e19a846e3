"""Corpora: from files as people have them to shards of rows in a fixed order."""

from barycenter.infra.corpus.base import BAD, Shard, Source, misfits_by_row
from barycenter.infra.corpus.corpus import Corpus
from barycenter.infra.corpus.opening import open_corpus, open_sample
from barycenter.infra.corpus.pictures.sources import Picture, Pictures

__all__ = ["BAD", "Corpus", "Picture", "Pictures", "Shard", "Source", "misfits_by_row", "open_corpus", "open_sample"]
