-- Providers that answer in place of the swarm: sealed keys, the addresses of custom ones, and what people chose about all.

CREATE TABLE providers (
    name TEXT PRIMARY KEY,
    base_url TEXT,
    sealed_key BLOB,
    CHECK (base_url IS NOT NULL OR sealed_key IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_choices (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key_source TEXT NOT NULL,
    claude_subscription INTEGER NOT NULL
) STRICT;
