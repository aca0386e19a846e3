"""The train stage: heads on fused vectors, and their predictions."""
