"""Option parsing and error handling shared by all commands."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sbm_jax.errors import SbmError

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


class Parser(argparse.ArgumentParser):
    """An option parser that reports errors in one line."""

    def __init__(self, name: str, text: str, example: str):
        """Create the parser of a command.

        Args:
          name: name of the command.
          text: what the command does, for its help.
          example: an example command line, for its help.
        """
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(
            name, description=text, epilog=f"example:\n  {example}", formatter_class=raw, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Print the error and a pointer to the help, and exit with status 2."""
        self.exit(2, f"error: {message}. See {self.prog} --help.\n")

    def add_workdir(self) -> None:
        """Add the option that names the work directory of a run."""
        self.add_argument("--workdir", required=True, metavar="DIR", help="the work directory of a finished run")


def run(command: Callable[[], None]) -> None:
    """Run a command; exit with 1 and a one-line message on an error that the user can fix, and with 130 on Ctrl-C."""
    try:
        command()
    except SbmError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # for example, from `sbm-jax info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what is still buffered
        sys.exit(1)
    except OSError as error:  # for example, an unreadable directory
        sys.exit(f"error: {error}. Fix this and run the same command again.")
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
