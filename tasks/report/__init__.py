"""The report stage: figures, tables, examples, and their pages."""
