"""``python -m genrec.cli``, as torchrun calls it."""

from genrec.cli import main

main()
