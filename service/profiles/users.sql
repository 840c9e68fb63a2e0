-- name: get
-- One user, for a reader.
SELECT id, email, name, username, profile, locale, status, version, created_at, updated_at FROM users WHERE id = $1;

-- name: lock
-- One user, held against other changes until the transaction ends.
SELECT id, email, name, username, profile, locale, status, version, created_at, updated_at FROM users WHERE id = $1
   FOR UPDATE;

-- name: insert
-- A new user.
INSERT INTO users (id, email, name, username, profile, locale, status) VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING id, email, name, username, profile, locale, status, version, created_at, updated_at;

-- name: update
-- A user as it is after a change.
UPDATE users SET email = $2, name = $3, username = $4, profile = $5, locale = $6, status = $7,
       version = version + 1, updated_at = clock_timestamp()
 WHERE id = $1
RETURNING id, email, name, username, profile, locale, status, version, created_at, updated_at;

-- name: delete
-- Forget a user; the values that others may now claim come back.
DELETE FROM users WHERE id = $1;

-- name: batch
-- The users of one node among these ids.
SELECT id, email, name, username, profile, locale, status, version, created_at, updated_at FROM users
 WHERE id = ANY($1);

-- name: page
-- The users of one node after an id, in the order of ids.
SELECT id, email, name, username, profile, locale, status, version, created_at, updated_at FROM users
 WHERE id > $1 AND /*mine*/ ORDER BY id LIMIT $2;

-- name: email_of
-- What the index of unique values asks: the e-mail that a user has now.
SELECT email FROM users WHERE id = $1;

-- name: username_of
-- What the index of unique values asks: the username that a user has now.
SELECT username FROM users WHERE id = $1;

-- name: existing
-- Which of these users the node has.
SELECT id FROM users WHERE id = ANY($1);

-- name: import
-- A user as an import has it, with the history that an export kept.
INSERT INTO users (id, email, name, username, profile, locale, status, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: export
-- All users of the node, each as one JSON text.
SELECT row_to_json(one)::text
  FROM (SELECT id, email, name, username, profile, locale, status, version, created_at, updated_at FROM users
         WHERE /*mine:id*/) AS one;
