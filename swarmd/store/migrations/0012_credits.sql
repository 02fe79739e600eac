-- What this node did for others and had done by them. The check on the account is the ledger's promise, kept by sqlite too.

CREATE TABLE credit_account (
    key TEXT PRIMARY KEY CHECK (key = 'own'),
    earned INTEGER NOT NULL CHECK (earned >= 0),
    spent INTEGER NOT NULL CHECK (spent >= 0),
    refunded INTEGER NOT NULL CHECK (refunded >= 0),
    balance INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    CHECK (earned - spent + refunded = balance)
) STRICT, WITHOUT ROWID;

-- What does not make a whole credit yet, in the units of its kind.
CREATE TABLE credit_carry (
    kind TEXT PRIMARY KEY,
    units INTEGER NOT NULL CHECK (units >= 0)
) STRICT, WITHOUT ROWID;

-- Set aside for requests that run.
CREATE TABLE credit_reservations (
    request TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    reserved_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Between this node and each other one, in millionths of a credit.
CREATE TABLE credit_peers (
    node TEXT PRIMARY KEY,
    given INTEGER NOT NULL CHECK (given >= 0),
    taken INTEGER NOT NULL CHECK (taken >= 0),
    last_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for an hour, a reason, a node and a model.
CREATE TABLE credit_entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hour INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    peer TEXT NOT NULL,
    model TEXT NOT NULL,
    amount INTEGER NOT NULL,
    quantity INTEGER NOT NULL,
    events INTEGER NOT NULL,
    UNIQUE (hour, kind, peer, model)
) STRICT;
