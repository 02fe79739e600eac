-- What the autopilot knows of models, what people allow it, and what it did.

CREATE TABLE model_trust (
    model TEXT PRIMARY KEY,
    trust_level TEXT NOT NULL CHECK (trust_level IN ('Discovered', 'DemandVerified', 'NetworkPopular')),
    first_seen REAL NOT NULL,
    total_requests INTEGER NOT NULL CHECK (total_requests >= 0),
    counted_requests INTEGER NOT NULL CHECK (counted_requests >= 0),
    last_request_at REAL,
    stepped_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE model_policies (
    model TEXT PRIMARY KEY,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    max_shards INTEGER NOT NULL CHECK (max_shards >= 0),
    prune_enabled INTEGER NOT NULL CHECK (prune_enabled IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE shard_locks (
    model TEXT NOT NULL,
    shard INTEGER NOT NULL CHECK (shard >= 0),
    PRIMARY KEY (model, shard)
) STRICT, WITHOUT ROWID;

-- Shards that the autopilot brought here: they count against its storage budget.
CREATE TABLE autopilot_shards (
    model TEXT NOT NULL,
    shard INTEGER NOT NULL CHECK (shard >= 0),
    fetched_at REAL NOT NULL,
    PRIMARY KEY (model, shard)
) STRICT, WITHOUT ROWID;

-- A row is written before the shard is deleted, and done afterwards.
CREATE TABLE prune_history (
    id INTEGER PRIMARY KEY,
    pruned_at REAL NOT NULL,
    model TEXT NOT NULL,
    name TEXT NOT NULL,
    shard INTEGER NOT NULL,
    reason TEXT NOT NULL,
    freed_bytes INTEGER NOT NULL,
    remaining_local_shards INTEGER NOT NULL,
    holder_count_before INTEGER NOT NULL,
    holder_count_after INTEGER NOT NULL,
    done INTEGER NOT NULL CHECK (done IN (0, 1))
) STRICT;

CREATE TABLE resource_schedule (
    key TEXT PRIMARY KEY CHECK (key = 'current'),
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    reduced_hours_start INTEGER NOT NULL CHECK (reduced_hours_start BETWEEN 0 AND 23),
    reduced_hours_end INTEGER NOT NULL CHECK (reduced_hours_end BETWEEN 0 AND 23),
    reduced_contribution TEXT NOT NULL CHECK (reduced_contribution IN ('minimal', 'moderate', 'maximum')),
    prune_aggressiveness TEXT NOT NULL CHECK (prune_aggressiveness IN ('normal', 'aggressive', 'conservative'))
) STRICT, WITHOUT ROWID;
