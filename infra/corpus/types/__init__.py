"""Types of columns and keys: one type a column, a recorded misfit for what does not fit."""
