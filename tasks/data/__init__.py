"""What a run has stored, read back: rows, aligned vectors, labelled rows, alignments, neighbors."""
