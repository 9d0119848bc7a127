"""What commands have in common: parsers of options, and how they end on errors."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sbm_jax.errors import SbmError

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


class Parser(argparse.ArgumentParser):
    """A parser of options, with errors of one line."""

    def __init__(self, name: str, text: str, example: str):
        """Prepare to read options.

        Args:
          name: of the command.
          text: what it does, for its help.
          example: a command line.
        """
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(
            name, description=text, epilog=f"example:\n  {example}", formatter_class=raw, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read more, and end with the status 2."""
        self.exit(2, f"error: {message}. See {self.prog} --help.\n")

    def add_workdir(self) -> None:
        """Add the option that names the work directory of a run."""
        self.add_argument("--workdir", required=True, metavar="DIR", help="the work directory of a finished run")


def run(command: Callable[[], None]) -> None:
    """Run a command, and end with 1 after an error that the user can mend, told in one line, and 130 after Ctrl-C."""
    try:
        command()
    except SbmError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # as of `sbm-jax info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is for nobody
        sys.exit(1)
    except OSError as error:  # such as a directory that may not be read
        sys.exit(f"error: {error}. Fix this and run the same command again.")
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
