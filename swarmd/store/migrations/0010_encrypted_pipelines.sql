-- What people chose for a model, whatever the setting says for all of them.

CREATE TABLE encrypted_pipelines (
    model TEXT PRIMARY KEY,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1))
) STRICT, WITHOUT ROWID;
