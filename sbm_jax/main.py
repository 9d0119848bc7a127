"""The command line: `python -m sbm_jax.main --config=configs/quickstart.py [--workdir=...] [--stages=...]`."""

import logging
import sys
from pathlib import Path

import absl.logging
import jax
from absl import app, flags
from ml_collections import config_flags

from sbm_jax import experiment
from sbm_jax.errors import SbmError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file of configs/, with variants after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is kept. Default: runs/<name of the config>.")
_STAGES = flags.DEFINE_list("stages", None, "Only these training stages, and no evaluation.")


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; options start with --.")
    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger("sbm_jax").setLevel(logging.INFO)
    try:
        config = experiment.parse_config(_CONFIG.value)
        workdir = Path(_WORKDIR.value or Path("runs") / config.name)
        workdir.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
        experiment.run(config, workdir, _STAGES.value)
    except SbmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(_main)
