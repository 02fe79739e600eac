"""The command line: `swarmd run` starts a node; nearly everything else is a client of a running node's admin API.

Prints through rich, never a traceback: what went wrong is one sentence on stderr and an exit code (1 failed, 2 wrong usage,
3 the node wants to be started again, 130 interrupted). Publishes nothing, listens to nothing, owns no state; only `run` and
`doctor` reach below the HTTP API.
"""

from swarmd.cli.program import main

__all__ = ["main"]
