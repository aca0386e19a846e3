"""The join stage: the inputs' own tables brought to the corpus."""
