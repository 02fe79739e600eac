-- What this node has set out to fetch and has not finished.

CREATE TABLE acquisitions (
    model TEXT PRIMARY KEY,
    triggered_by TEXT NOT NULL,
    started_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Without rows here the shards are chosen once the manifest is known.
CREATE TABLE acquisition_shards (
    model TEXT NOT NULL REFERENCES acquisitions (model) ON DELETE CASCADE,
    shard INTEGER NOT NULL CHECK (shard >= 0),
    PRIMARY KEY (model, shard)
) STRICT, WITHOUT ROWID;
