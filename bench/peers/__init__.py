"""What we are compared with: each does the same work by hand, as fast as we know how to."""
