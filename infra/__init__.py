"""Where a run works: job file, corpora, storage, versions, Ray, dispatch of work."""
