"""The formats of a corpus: each counts rows, names columns and reads a shard."""
