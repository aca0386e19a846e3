"""Progress on the terminal, in Prefect and in Ray's metrics."""
