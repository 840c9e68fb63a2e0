"""Running it: the local stack, and what production needs."""
