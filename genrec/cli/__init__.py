"""The command ``genrec``: a thin shell around the libraries, which are imported inside the commands that need them."""

import sys
from pathlib import Path

import click

from genrec import __version__
from genrec.cli.compare import compare
from genrec.cli.data import data
from genrec.cli.evaluate import evaluate
from genrec.cli.options import OneLineErrors
from genrec.cli.plot import plot
from genrec.cli.semantic_ids import semantic_ids
from genrec.cli.train import quickstart, train
from genrec.cli.zoo import zoo


@click.group(cls=OneLineErrors)
@click.version_option(__version__)
def main() -> None:
    """Train recommenders and measure them."""
    sys.path.append(str(Path.cwd()))  # a model of one's own, package.module:Class, may lie in the folder one works in


for command in (quickstart, train, evaluate, compare, plot, semantic_ids, data, zoo):
    main.add_command(command)
