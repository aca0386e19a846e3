"""The align stage: moments of the embeddings, and the alignment fitted on them."""
