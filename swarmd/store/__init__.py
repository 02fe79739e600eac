"""What the node remembers: one sqlite file, SQL here and nowhere else, domain values in and out.

`database` holds the one connection and the numbered migrations; the other modules hold the SQL of one subject each.
Publishes nothing: the owner of a state announces it.
"""
