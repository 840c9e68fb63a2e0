"""What ``shardctl doctor`` looks at: each check looks, a plain function judges what it saw."""
