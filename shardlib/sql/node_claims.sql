-- Uniqueness across nodes: the index of unique values, and the decisions about claims. May be run again.
CREATE TABLE IF NOT EXISTS shardlib.identifier (
    value text COLLATE "C" PRIMARY KEY CHECK (length(value) <= 200),
    owner text COLLATE "C" NOT NULL,
    token uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'committed')),
    request_id text,
    claimed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE shardlib.identifier IS 'Who claims or holds a unique value; the key of its keyspace is value';
COMMENT ON COLUMN shardlib.identifier.value IS 'kind:key:hex of an HMAC, never the clear value';
COMMENT ON COLUMN shardlib.identifier.token IS 'Of the claim: the name of its decision at the owner''s home';
COMMENT ON COLUMN shardlib.identifier.request_id IS 'Of the request that claimed it, so that its retry meets its own claim';
CREATE INDEX IF NOT EXISTS identifier_pending ON shardlib.identifier (claimed_at) WHERE state = 'pending';

CREATE TABLE IF NOT EXISTS shardlib.claim_decision (
    keyspace text NOT NULL,
    bucket integer NOT NULL,
    owner text COLLATE "C" NOT NULL,
    token uuid NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (keyspace, bucket, owner, token)
);
COMMENT ON TABLE shardlib.claim_decision IS 'The one outcome of each claim, at the home of its owner';
CREATE INDEX IF NOT EXISTS claim_decision_age ON shardlib.claim_decision (created_at);
