"""The command `sbm-jax train`: trains, evaluates and writes a report."""

import contextlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import jax
from absl import app, flags
from ml_collections import config_flags

from sbm_jax import config_file, experiment, experiment_config, parallel, preemption
from sbm_jax.errors import SbmError, require
from sbm_jax.storage import user_path

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file of configs/, with variants after a colon.", lock_config=True
)
flags.FLAGS["config"].parser = config_file.ConfigParser("config", experiment_config.complete, experiment_config.CHOICES)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is kept. Default: runs/<name of the config>.")
_PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of some steps of each stage to <workdir>/profile.")
_GRACE = flags.DEFINE_float(
    "grace_seconds",
    preemption.GRACE_SECONDS,
    "Seconds from SIGTERM until the process ends, whatever it is doing; allow more if a checkpoint takes long.",
)
_STAGES = flags.DEFINE_list("stages", None, "Only these training stages, and no evaluation.")


def _parse(argv: list[str]) -> list[str]:
    """Parse the flags; end the process with a one-line message if they are wrong."""
    try:
        return flags.FLAGS(argv)
    except SbmError as error:
        sys.exit(f"error: {error}")
    except flags.Error as error:
        sys.exit(f"error: {next(line for line in str(error).splitlines() if line.strip())}")


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {argv[1:]}; options start with --.")
    absl.logging.set_verbosity(absl.logging.ERROR)  # quietens orbax and tensorflow-datasets
    try:
        require(0 <= _GRACE.value <= MOST_GRACE, "--grace_seconds", _GRACE.value, f"0 to {MOST_GRACE:g}")
        with preemption.listening(_GRACE.value):
            _connect()
            with _quiet_unless_main():
                config = experiment_config.parse_config(_CONFIG.value)
                workdir = user_path(_WORKDIR.value or Path("runs") / config.name, "--workdir")
                jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # lets resumed runs start at once
                experiment.run(config, workdir, _STAGES.value, profile=_PROFILE.value)
    except SbmError as error:
        _end(f"error: {error}", 1)
    except BrokenPipeError:
        _end(f"error: the output stream was closed. {AGAIN}", preemption.RESUME)
    except OSError as error:
        if isinstance(error, TimeoutError) and jax.process_count() > 1:  # while saving a checkpoint together
            _end(GONE, preemption.RESUME)
        _end(f"error: {error}. What was finished is kept: fix this and run the same command again.", 1)
    except Exception as error:
        if jax.process_count() == 1:
            raise
        if "Gloo" in str(error):  # a collective on CPUs: another process has ended
            _end(GONE, preemption.RESUME)
        traceback.print_exc()  # the other processes wait for this one: a normal exit would hang
        if not isinstance(error, jax.errors.JaxRuntimeError) or str(error).startswith(OWN_FAILURES):
            _end(f"error: this process failed ({type(error).__name__}); the others end with it.", 1)
        _end(GONE, preemption.RESUME)
    except preemption.Preempted:
        _end(f"interrupted by SIGTERM. {AGAIN}", preemption.RESUME)
    except KeyboardInterrupt:
        _end(f"interrupted. {AGAIN}", INTERRUPTED)


def _print_anywhere() -> None:
    """Keep output from ending a run, be it a closed stream or a character that the terminal lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _connect() -> None:
    """Connect the processes of a job, before anything else uses JAX."""
    try:
        parallel.start()
    except jax.errors.JaxRuntimeError as error:
        _end(f"error: not all processes of this job connected ({error}). {AGAIN}", preemption.RESUME)


OWN_FAILURES = ("RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "INVALID_ARGUMENT")
"""Prefixes of runtime errors that do not stem from lost connections: they would recur."""

MOST_GRACE = 86_400.0
"""A day: no scheduler waits longer."""

INTERRUPTED = 130
"""The exit status after Ctrl-C."""

AGAIN = "Finished work is kept; run the same command again to resume."

GONE = f"error: another process of this job exited or failed. {AGAIN}"


@contextlib.contextmanager
def _quiet_unless_main() -> Iterator[None]:
    """Let only the first process report progress; all report errors."""
    logging.getLogger("sbm_jax").setLevel(logging.INFO if parallel.is_main() else logging.WARNING)
    if parallel.is_main():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _end(message: str, status: int) -> None:
    """Print the reason, and end the process with a status."""
    with contextlib.suppress(OSError):  # the stream may be closed
        print(message, file=sys.stderr, flush=True)
    if status in (preemption.RESUME, INTERRUPTED) or jax.process_count() > 1:
        # Exit at once: a normal exit would wait for the other processes of the job, and tear things down under threads
        # that are still computing.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def run() -> None:
    """Run the command in `sys.argv`, and end the process."""
    _print_anywhere()
    name_one = "Name the experiment, for example --config=configs/quickstart.py."
    flags.register_validator("config", lambda config: config is not None, name_one)
    app.run(_main, flags_parser=_parse)
