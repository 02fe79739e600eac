"""The command line: `swarmd run` starts a node; nearly everything else is a client of a running node's admin API.

Prints through rich, never a traceback: what went wrong is one sentence on stderr and an exit code (`failure.EXIT_CODES`).
Publishes nothing, listens to nothing, owns no state; only `run` and `doctor` reach below the HTTP API.
"""

import sys


def main() -> None:
    """Entry point. Never returns: ends the process with the command's exit code."""
    from swarmd.cli import names

    if sys.argv[1:2] == [names.WORD]:  # a TAB must not wait for all the commands to be imported
        names.main(sys.argv[2:])
        sys.exit(0)
    from swarmd.cli import program

    program.main()


__all__ = ["main"]
