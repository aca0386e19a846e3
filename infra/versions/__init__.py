"""Versions of an output: manifests, their history, and the embedding files that they share."""
