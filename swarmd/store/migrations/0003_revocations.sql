-- Who was put out of the network, each as signed. One row a node: a newer revocation takes the place of an older one.
CREATE TABLE revocations (
    node TEXT PRIMARY KEY,
    revoked_at INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT, WITHOUT ROWID;
