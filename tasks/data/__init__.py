"""What a run has stored, read back: rows, aligned vectors, labeled rows, alignments, neighbors."""
