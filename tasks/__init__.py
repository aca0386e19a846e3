"""The stages of a run: each a Prefect task over Ray workers; ``run`` and ``data`` are what all of them share."""
