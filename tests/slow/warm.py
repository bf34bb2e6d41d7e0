"""Runs commands in children of a process that has imported everything: a kill then strikes work, not imports.

Reads one command a line (a JSON list of words), writes the child's number, and then how it ended.
"""

import json
import os
import sys


def serve() -> None:
    # Here, and not above: workers of a release import this file too.
    import taggant_lightning.commands.release
    import taggant_lightning.commands.training  # noqa: F401
    from taggant_lightning.cli import main

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            words, log = json.loads(line)
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            status = 70
            try:
                status = main(words)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
