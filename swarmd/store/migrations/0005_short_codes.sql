-- An invite may have a short code in place of its long text: that one lives in memory only, and ends with the run. Burnt:
-- somebody guessed its words wrong.
ALTER TABLE invites ADD COLUMN short INTEGER NOT NULL DEFAULT 0 CHECK (short IN (0, 1));
ALTER TABLE invites ADD COLUMN burnt INTEGER NOT NULL DEFAULT 0 CHECK (burnt IN (0, 1));
