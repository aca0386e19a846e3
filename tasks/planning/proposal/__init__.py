"""A job file proposed for a corpus: what its columns are for, which encoders are there, why."""
