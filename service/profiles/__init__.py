"""Profiles: the accounts themselves, each at the home of its id."""
