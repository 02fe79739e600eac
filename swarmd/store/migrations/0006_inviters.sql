-- Inviters admit and revoke besides the founder; a member of an open network has no certificate.

ALTER TABLE invites ADD COLUMN role TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'inviter'));

CREATE TABLE membership_6 (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    network TEXT NOT NULL,
    certificate BLOB,
    founded INTEGER NOT NULL CHECK (founded IN (0, 1)),
    joined_at REAL NOT NULL
) STRICT;
INSERT INTO membership_6 SELECT only_row, network, certificate, founded, joined_at FROM membership;
DROP TABLE membership;
ALTER TABLE membership_6 RENAME TO membership;

-- One row for a node and an issuer. All there were so far are the founder's: their issuer is the network, bytes 74 to 105.
CREATE TABLE revocations_6 (
    node TEXT NOT NULL,
    issuer TEXT NOT NULL,
    revoked_at INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (node, issuer)
) STRICT, WITHOUT ROWID;
INSERT INTO revocations_6 SELECT node, lower(hex(substr(record, 74, 32))), revoked_at, record FROM revocations;
DROP TABLE revocations;
ALTER TABLE revocations_6 RENAME TO revocations;
