"""Gradient descent: the context that a loop runs in, and the one loop with early stopping."""
