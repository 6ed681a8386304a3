"""How ``genrec-runtime`` starts: it hears SIGTERM before it imports what takes long.

A container's first process gets no signal that it has no handler for.
"""

import os
import signal


def runtime() -> None:
    """The command; until it serves, SIGTERM ends it at once, with 143."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    from genrec_runtime.cli import main

    main()
