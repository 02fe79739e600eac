-- What was answered at /v1/responses and is kept for thirty days: `body` without its output, JSON like `output` and `input_items`.
-- Small columns first: a listing does not read the pages of the long ones.

CREATE TABLE responses (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')),
    background INTEGER NOT NULL CHECK (background IN (0, 1)),
    previous TEXT,
    size_bytes INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    input_preview TEXT NOT NULL,
    output_preview TEXT NOT NULL,
    body TEXT NOT NULL,
    output TEXT NOT NULL,
    input_items TEXT NOT NULL
) STRICT;

CREATE INDEX responses_by_expiry ON responses (expires_at);
CREATE INDEX responses_by_status ON responses (status, number);
CREATE INDEX responses_sizes ON responses (size_bytes);
