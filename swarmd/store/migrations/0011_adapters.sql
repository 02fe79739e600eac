-- LoRA adapters that people registered on this node. Their parts lie under the digest in the folder of adapters.

CREATE TABLE adapters (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    base_model TEXT NOT NULL,
    rank INTEGER NOT NULL,
    alpha REAL NOT NULL,
    path TEXT NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    size_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
