"""Side-by-side benchmarks: what we cost, against hand-written code that does the same work (``make bench``)."""
