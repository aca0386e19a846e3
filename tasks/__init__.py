"""The stages of a run, as plain functions; ``pipeline`` calls them in order, ``run`` and ``data`` are what they share."""
