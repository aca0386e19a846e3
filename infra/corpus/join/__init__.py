"""The join of the inputs' own tables to the corpus on the key."""
