"""One run of a job: its corpus, its encoders, its identities."""
