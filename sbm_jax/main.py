"""The command line: `python -m sbm_jax.main --config=configs/quickstart.py [--workdir=...] [--stages=...]`."""

import logging
import sys
from pathlib import Path

import absl.logging
import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from sbm_jax import experiment
from sbm_jax.errors import SbmError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file of configs/, with variants after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is kept. Default: runs/<name of the config>.")
_STAGES = flags.DEFINE_list("stages", None, "Only these training stages, and no evaluation.")


def _parse(argv: list[str]) -> list[str]:
    """Parse the flags, turning each way in which they can be wrong into one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        # A config file that raises is told with its traceback, of which the last line is the message.
        inner = [line.strip() for line in lines if line.lstrip().startswith("ValueError: ")]
        sys.exit(f"error: {inner[-1].removeprefix('ValueError: ') if inner else lines[0]}")
    except (KeyError, AttributeError, TypeError) as error:  # an override that the config does not have
        sys.exit(f"error: in a --config override: {' '.join(str(error.args[0]).split())}")


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {argv[1:]}; options start with --.")
    absl.logging.set_verbosity(absl.logging.ERROR)  # of orbax and tensorflow-datasets
    logging.getLogger("sbm_jax").setLevel(logging.INFO)
    if not isinstance(_CONFIG.value, ConfigDict):
        sys.exit(
            f"error: the config file {flags.FLAGS['config'].config_filename} can not be read; name one of configs/."
        )
    try:
        config = experiment.parse_config(_CONFIG.value)
        workdir = Path(_WORKDIR.value or Path("runs") / config.name)
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
        experiment.run(config, workdir, _STAGES.value)
    except SbmError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}. What was finished is kept: mend this and run the same command again.")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(_main, flags_parser=_parse)
