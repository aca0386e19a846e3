"""Units of work over the workers of an executor: retries, replacement, the search for poisoned rows."""
