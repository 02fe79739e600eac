-- Shards whose download a person cancelled: the autopilot leaves them alone for a while, also after a restart.

CREATE TABLE cancelled_shards (
    model TEXT NOT NULL,
    shard INTEGER NOT NULL CHECK (shard >= 0),
    cancelled_at REAL NOT NULL,
    PRIMARY KEY (model, shard)
) STRICT, WITHOUT ROWID;
