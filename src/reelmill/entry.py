"""The console script: the command line, with an interrupt during its imports told in words."""

import sys
from typing import NoReturn

INTERRUPTED = 75


def main() -> NoReturn:
    """Runs the command line. An interrupt before it takes over ends with exit code 75 too."""
    try:
        from reelmill.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted: stopped before anything began. Run the command again.\n")
        sys.exit(INTERRUPTED)
    run()
