"""Pictures of a corpus: paths, inline bytes, http(s)."""
