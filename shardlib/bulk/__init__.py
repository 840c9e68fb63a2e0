"""Rows and unique values in large numbers.

``Bulk``        rows of a keyspace: COPY in and out, or a body of your own, in one transaction per node and batch
``BulkClaims``  the steps of ``Unique`` for a batch of owners at a time
"""

from shardlib.bulk.claims import BulkClaims, Seat, Standing, Wanted, new_token
from shardlib.bulk.rows import Bulk, Part

__all__ = ["Bulk", "BulkClaims", "Part", "Seat", "Standing", "Wanted", "new_token"]
