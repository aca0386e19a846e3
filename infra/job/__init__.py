"""The job file: frozen models of its sections, reading, paths and printing."""
