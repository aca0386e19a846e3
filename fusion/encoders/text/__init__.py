"""Text encoders of transformers and sentence-transformers."""
