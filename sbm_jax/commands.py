"""What the commands of `sbm-jax` do on a trained work directory; `command_line` reads their options."""

import argparse
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbm_jax import report
from sbm_jax.data import files, row_files
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.experiment_config import make_system, read_config
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import user_path
from sbm_jax.system import Generated
from sbm_jax.trained import TrainedSystem, load
from sbm_jax.training.stages import steps_done
from sbm_jax.types import Modality


def load_quickly(workdir: Path, system: str | None) -> TrainedSystem:
    """Load a work directory, and cache compiled programs in it as training does."""
    model = load(workdir, system)
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return model


def sampler_options(model: TrainedSystem, solver: str | None, steps: int | None) -> SamplerOptions:
    """Return a run's sampler options, with another solver or number of steps where one is given.

    Raises:
      SbmError: if there is no such solver, or the system does not support these options.
    """
    own = model.options
    solver = own.solver if solver is None else solver
    options = dataclasses.replace(own, solver=solver, num_steps=own.num_steps if steps is None else steps)
    model.system.check(options)
    return options


# MARK: generate


def generate(options: argparse.Namespace) -> None:
    """Write samples of some modalities, given files of others.

    Raises:
      SbmError: on anything that the user can fix, before anything is written.
    """
    output = user_path(options.output, "--output")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SbmError(
            f"--output={options.output!r} exists and is not empty; expected a new directory. Choose another."
        )
    model = load_quickly(user_path(options.workdir, "--workdir"), options.system)
    sampler = sampler_options(model, options.solver, options.steps)
    data, names = _given(model, options.given, options.text)
    require(options.rows is None or options.rows >= 1, "--rows", options.rows, "1 or more")
    if data and options.rows is not None:
        raise SbmError(
            f"--rows={options.rows} is for samples given nothing; here the given data determine the rows. Drop it."
        )
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        samples = model.generate(
            data,
            options.targets,
            batch_size=None if data else options.rows or 1,
            num_samples=options.samples,
            seed=options.seed,
            strength=options.strength,
            options=sampler,
        )
    seconds = time.monotonic() - start
    for warning in told:
        print(f"warning: {warning.message}", file=sys.stderr)
    _write(model, samples, names or _numbers(options.rows or 1), output)
    print(f"{evaluations(samples)}, {seconds:.1f} s including compilation. Samples: {output}")


def evaluations(samples: Generated) -> str:
    """Describe how often networks were evaluated for each sample."""
    told = f"{int(samples.info['network_evaluations'])} evaluations of the network"
    drawn = int(samples.info.get("decoder_evaluations", 0))
    return f"{told}, {drawn} of each decoder" if drawn else told


def _given(model: TrainedSystem, paths: Sequence[str], texts: Sequence[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the given rows by modality, and row names from the files of the first modality that has files.

    Raises:
      SbmError: if something is given twice, or in a form that its modality does not take; see also `_names_of_rows`.
    """
    known = {modality.name: modality for modality in model.modalities}
    data: dict[str, list[Any]] = {}
    stems: dict[str, list[str]] = {}
    for given in paths:
        modality, text = _named(given, known, "--given", "NAME=PATH")
        path = user_path(text, "--given")
        found = _rows_of_folder(path, modality) if path.is_dir() else [path]
        if path.is_dir() and modality.name in data:
            raise SbmError(f"--given names {modality.name!r} twice; give all its rows by one folder.")
        data.setdefault(modality.name, []).extend(row_files.read_row(modality, one) for one in found)
        stems.setdefault(modality.name, []).extend(one.stem for one in found)
    for given in texts:
        modality, text = _named(given, known, "--text", "NAME=TEXT")
        if modality.name in stems:
            raise SbmError(f"{modality.name!r} is given by --text and by --given; expected one of them. Drop one.")
        data.setdefault(modality.name, []).append(row_files.row_of_text(modality, text))
    num_rows = len(next(iter(data.values()), ()))
    return data, _names_of_rows(list(stems.values())) or _numbers(num_rows)


def _names_of_rows(stems: Sequence[list[str]]) -> list[str]:
    """Return row names, from the files of the first modality that has files; [] without files.

    Raises:
      SbmError: if two modalities of several files differ in the files' names, or a name occurs twice.
    """
    names = next(iter(stems), [])
    for other in stems:
        if len(names) > 1 and len(other) > 1 and other != names:
            told = f"not {names[:3]} and {other[:3]}"
            raise SbmError(f"the files of one row must share one name, up to the ending, {told}. Rename them.")
    if len({*names}) != len(names):
        raise SbmError(
            f"the files {names[:5]} do not all differ in their names, which the samples take over. Rename them."
        )
    return names


def _named(given: str, known: Mapping[str, Modality], option: str, form: str) -> tuple[Modality, str]:
    """Return the modality that an option names, and the value given for it."""
    name, equals, value = given.partition("=")
    require(bool(equals and value), option, given, form)
    if name not in known:
        raise unknown(f"modality ({option})", name, known)
    return known[name], value


def _numbers(num_rows: int) -> list[str]:
    """Return names for rows without files: their numbers."""
    return [f"{row:04d}" for row in range(num_rows)]


def _rows_of_folder(folder: Path, modality: Modality) -> list[Path]:
    """Return the files of a modality in a folder, sorted by name.

    Raises:
      SbmError: if there are none.
    """
    known = row_files.suffixes(modality)
    found = files.listing(folder, known)
    if not found:
        raise SbmError(f"{folder} has no files of modality {modality.name!r}; expected {', '.join(known)}. Add some.")
    return found


def _write(model: TrainedSystem, samples: Generated, names: Sequence[str], output: Path) -> None:
    """Write ``<output>/<modality>/<row>_<sample>`` for each sample that did not diverge."""
    for modality in model.modalities:
        if modality.name not in samples.data:
            continue
        rows, written = samples.data[modality.name], []
        for index in np.ndindex(rows.shape[:2]):
            row = rows[index]
            if row.dtype.kind != "f" or np.isfinite(row).all():
                stem = output / modality.name / f"{names[index[0]]}_{index[1]}"
                written.append(row_files.write_row(modality, np.asarray(row), stem))
        lost = rows.shape[0] * rows.shape[1] - len(written)
        left_out = f", {lost} diverged samples left out" if lost else ""
        print(f"{modality.name}: {len(written)} {row_files.suffix(modality)} files{left_out}")


# MARK: info


def info(options: argparse.Namespace) -> None:
    """Print what a work directory holds: modalities, systems, stages, results and versions.

    Raises:
      SbmError: if it holds no run, or damaged files.
    """
    workdir = user_path(options.workdir, "--workdir")
    if not (workdir / "stages").is_dir():
        raise SbmError(f"{workdir} is not a work directory: it has no folder 'stages'. Train one with sbm-jax train.")
    console = Console(highlight=False, soft_wrap=True)
    stages = {path.parent.name: steps_done(path.parent.name, workdir) for path in workdir.glob("stages/*/stage.json")}
    complete = {name for name, (step, num_steps) in stages.items() if step == num_steps}
    if (workdir / "config.json").is_file():
        config = read_config(workdir)
        console.print(f"[bold]{escape(config.name)}[/bold] in {escape(str(workdir))}, seed {config.seed}")
        console.print(_modalities_table(config.modalities))
        systems = [make_system(config, name) for name in config.systems]
        console.print(_table("Systems", ("name", "state"), [_state(s.name, s.stage_names, complete) for s in systems]))
    else:
        console.print(f"{escape(str(workdir))}: training is not finished; the same command resumes it.")
    console.print(
        _table("Stages", ("name", "steps", "state"), [_stage(name, *stages[name]) for name in sorted(stages)])
    )
    results = workdir / "results.json"
    if results.is_file():
        _print_results(report.read_results(results), console)
    page = workdir / "report" / "index.html"
    console.print(f"Report:   {escape(str(page))}" if page.is_file() else "Report:   none yet")


def _print_results(results: Mapping[str, Any], console: Console) -> None:
    report.print_table(results, console)
    versions = ", ".join(f"{name} {version}" for name, version in (results.get("versions") or {}).items() if version)
    console.print(f"Versions: {escape(versions or 'unknown')}")
    device = results.get("device") or {}
    console.print(f"Device:   {escape(', '.join(f'{name} {value}' for name, value in device.items()) or 'unknown')}")


def _modalities_table(modalities: Sequence[Modality]) -> Table:
    rows = [
        (m.name, m.format.name, " x ".join(map(str, m.shape)), str(m.latent_size), m.codec.name, row_files.suffix(m))
        for m in modalities
    ]
    return _table("Modalities", ("name", "format", "shape", "latent size", "codec", "files"), rows)


def _state(name: str, needed: Sequence[str], complete: set[str]) -> tuple[str, str]:
    lacking = [stage for stage in needed if stage not in complete]
    return name, f"lacks {', '.join(lacking)}" if lacking else "trained"


def _stage(name: str, step: int | None, num_steps: int) -> tuple[str, str, str]:
    state = "complete" if step == num_steps else f"saved at step {step}" if step is not None else "nothing saved"
    return name, f"{num_steps:,}" if num_steps else "computed", state


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


# MARK: export


def export(options: argparse.Namespace) -> None:
    """Write a trained sampler that runs with JAX alone.

    Raises:
      SbmError: on anything that the user can fix.
    """
    model = load_quickly(user_path(options.workdir, "--workdir"), options.system)
    path = model.export(
        user_path(options.output, "--output"),
        given=options.given,
        targets=options.targets,
        num_rows=options.rows,
        num_samples=options.samples,
        strength=options.strength,
        options=sampler_options(model, options.solver, options.steps),
        platforms=options.platforms,
        weights=options.weights and user_path(options.weights, "--weights"),
    )
    platforms = json.loads(path.read_text(encoding="utf-8"))["platforms"]
    print(f"Program: {options.output}, for {', '.join(platforms)}\nHow to call it: {path}")
