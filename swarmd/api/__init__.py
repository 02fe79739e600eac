"""The HTTP rim: one table of routes, and thin handlers that parse, make one call, and print.

Serves the admin API, the OpenAI dialect, the live socket, the dashboard's files, and the description of all of these.
Publishes nothing; `ws` taps every fact. Holds no state of the node and decides nothing about it. `routes` is the table
that server, guard, OpenAPI document and tests read; `views` is the only place where domain values become JSON rows;
`replies` is the only place where a refusal becomes a status.

Why no framework on top of aiohttp: the table already is one, and types come from msgspec at the door.
"""
