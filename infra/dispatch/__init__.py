"""Work over Ray actors: at least once, retried, poison isolated by bisection."""
