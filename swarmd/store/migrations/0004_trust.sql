-- How far other nodes are trusted. score: at judged_at; what time has done to it since is computed when it is read.

CREATE TABLE trust (
    node TEXT PRIMARY KEY,
    score REAL NOT NULL CHECK (score BETWEEN 0 AND 1),
    judged_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
