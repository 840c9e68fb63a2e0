-- Users: one row each, at the home of its id.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 320),
    name text CHECK (length(name) <= 200),
    username text CHECK (length(username) <= 64),
    profile jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(profile) = 'object' AND pg_column_size(profile) <= 65536),
    locale text CHECK (length(locale) <= 35),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted')),
    version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90); -- room on each page for the next version of its rows: no index is touched (HOT)
COMMENT ON COLUMN users.version IS 'The number of the ETag; it rises by one with each change';

SELECT shardlib.attach('users', 'users', 'id');

-- The application may neither empty the table nor move a row to another key.
GRANT SELECT, INSERT, DELETE,
      UPDATE (email, name, username, profile, locale, status, version, created_at, updated_at) ON users TO shardlib;
