"""Before the work: the job checked against its corpus, and what is left to do."""
