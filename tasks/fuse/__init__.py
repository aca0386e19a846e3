"""The fuse stage: fused vectors into partitioned Parquet, and the commit."""
