-- Who we are in which network, whom we invited, whom we know.

-- One row at most: one node belongs to one network.
CREATE TABLE membership (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    network TEXT NOT NULL,
    certificate BLOB NOT NULL,
    founded INTEGER NOT NULL CHECK (founded IN (0, 1)),
    joined_at REAL NOT NULL
) STRICT;

-- The code itself is never stored, only what was derived from its secret.
CREATE TABLE invites (
    tag BLOB PRIMARY KEY,
    psk BLOB NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    cancelled INTEGER NOT NULL DEFAULT 0 CHECK (cancelled IN (0, 1))
) STRICT, WITHOUT ROWID;

-- invite_tag is NULL for a renewal. A node that lost our answer asks again with the same invite and gets the same one.
CREATE TABLE issued_certificates (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    invite_tag BLOB,
    certificate BLOB NOT NULL,
    issued_at REAL NOT NULL,
    UNIQUE (invite_tag, node)
) STRICT;

CREATE TABLE peers (
    node TEXT PRIMARY KEY,
    known_since REAL NOT NULL,
    last_seen REAL
) STRICT, WITHOUT ROWID;

-- last_ok: a link to this endpoint was up. NULL: somebody said so, nobody tried with success.
CREATE TABLE peer_endpoints (
    node TEXT NOT NULL REFERENCES peers (node) ON DELETE CASCADE,
    host TEXT NOT NULL,
    port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    source TEXT NOT NULL,
    known_since REAL NOT NULL,
    last_ok REAL,
    PRIMARY KEY (node, host, port)
) STRICT, WITHOUT ROWID;
