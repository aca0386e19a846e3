"""Fuzzed tables from a corpus to its feature files and back through their readers, without Ray.

    python -m tests.fuzz N=100000 SEED=1 WORKERS=2

Every kind of column of :data:`tests.fuzz.tables.FAMILIES` is a key, a kept column, a partition column and a target in
as many tables. Of each table: rows written and rejected are those read, keys and values come back equal, a value that
does not fit its column is a reject, what is refused is named, and no exception is not one of ours.
"""
