"""What is run: Prefect flows and the command line."""
