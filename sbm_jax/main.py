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
        sys.exit(f"error: {lines[-1].strip() if 'Traceback' in lines[0] else lines[0]}")
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
        experiment.prepare(workdir)
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
        experiment.run(config, workdir, _STAGES.value)
    except SbmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(_main, flags_parser=_parse)
