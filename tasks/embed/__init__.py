"""The embed stage: shards of the corpus through an encoder."""
