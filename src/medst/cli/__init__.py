"""The command line: one file per verb, which reads the arguments, calls one function and prints the outcome.

Nothing heavy is imported before a verb runs, so that `medst --help` answers at once.
"""

from medst.cli.entry import main

__all__ = ["main"]
