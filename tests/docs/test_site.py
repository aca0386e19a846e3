"""`make docs`: the site builds without a warning, its links hold, nothing in it asks another host."""
