-- The index of unique values (shardlib.Unique) is a keyspace of its own, placed by the value.
SELECT shardlib.attach('identifiers', 'shardlib.identifier', 'value');
