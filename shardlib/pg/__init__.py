"""The only part that imports asyncpg."""
