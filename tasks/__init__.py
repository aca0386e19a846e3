"""The stages of a run, as plain functions; ``pipeline`` calls them in order, all share ``run`` and ``data``."""
