"""Runs the stages of a run: loads, resumes or computes each, and identifies it by its recipe."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from sbm_jax import parallel, preemption
from sbm_jax.config import plain
from sbm_jax.errors import SbmError, unknown
from sbm_jax.storage import write_atomically
from sbm_jax.training.checkpoints import Checkpoints
from sbm_jax.training.loop import stage_keys, train
from sbm_jax.training.optimizers import make_optimizer
from sbm_jax.types import Params, Stage

# Except for rounding: they split a stage into different dispatches, which XLA may compile differently.
_NO_EFFECT = ("checkpoint_every", "validate_every", "validate_rows", "split_parameters")


def _recipe(settings: Any) -> Any:
    """Return settings as JSON values, without those that do not affect the product."""
    if isinstance(settings, Mapping):
        return {name: _recipe(value) for name, value in settings.items() if name not in _NO_EFFECT}
    return plain(settings)


def fingerprints(stages: Iterable[Stage]) -> dict[str, str]:
    """Return the fingerprint of each stage: a digest of its settings and its required stages' fingerprints."""
    result: dict[str, str] = {}
    for stage in stages:
        recipe = {"settings": _recipe(stage.settings), "requires": [result[name] for name in stage.requires]}
        result[stage.name] = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return result


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(settings, list):
        settings = {str(index): value for index, value in enumerate(settings)}
    if not isinstance(settings, Mapping):
        return {prefix: settings}
    parts = [_flat(value, f"{prefix}.{name}" if prefix else name) for name, value in settings.items()]
    return {name: value for part in parts for name, value in part.items()}


def _read_recipe(directory: Path) -> dict[str, Any]:
    path = directory / "stage.json"
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        if recipe.keys() >= {"fingerprint", "num_steps", "settings"}:
            return recipe
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        pass
    raise SbmError(f"{path} is damaged. Delete {directory} to train this stage again.")


def _check_recipe(stage: Stage, fingerprint: str, directory: Path) -> None:
    """Check that any checkpoints in a stage's directory come from the same recipe.

    Raises:
      SbmError: if they do not; names the settings that differ.
    """
    if not (directory / "stage.json").is_file() or not any((directory / "checkpoints").glob("[0-9]*")):
        return
    found = _read_recipe(directory)
    if found["fingerprint"] == fingerprint:
        return
    old, new = _flat(found["settings"]), _flat(_recipe(stage.settings))
    changed = [f"{n}: was {old.get(n)!r}, is {new.get(n)!r}" for n in {**old, **new} if old.get(n) != new.get(n)]
    reason = "; ".join(changed[:5]) or "a stage it depends on has changed"
    raise SbmError(
        f"stage {stage.name!r} in {directory} was made with another config ({reason}). Use another --workdir, or "
        f"delete that directory (and those of later stages) to train it again."
    )


def _has(workdir: Path, name: str, fingerprint: str) -> bool:
    """Return whether a work directory holds a stage with this recipe."""
    directory = workdir / "stages" / name
    return (directory / "stage.json").is_file() and _read_recipe(directory)["fingerprint"] == fingerprint


def _home(workdir: Path, shared: Path | None, name: str, fingerprint: str) -> Path:
    """Return the shared work directory if it holds a stage with this recipe, otherwise `workdir`."""
    if shared is None:
        return workdir
    return shared if parallel.from_main(lambda: int(_has(shared, name, fingerprint))) else workdir


def run_stages(
    stages: list[Stage],
    workdir: Path,
    seed: int,
    only: Iterable[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    shared: Path | None = None,
    profile_dir: Path | None = None,
) -> dict[str, Params]:
    """Run stages in order and return their products by name.

    Loads a stage that is complete in `workdir`, and resumes an interrupted one.

    Args:
      stages: stages, each after those that it requires.
      workdir: holds `stages/<name>` and `metrics/<name>.jsonl`.
      seed: the run's seed.
      only: names of the stages to run, whose required stages must be complete; None for all.
      mesh: the devices; None for all.
      shared: another work directory to load stages with the same recipe from.
      profile_dir: directory for a trace of some steps of each stage; None for no trace.

    Raises:
      SbmError: on an unknown name in `only`, a stage made with another config, or a missing upstream stage.
    """
    mesh = mesh or parallel.data_mesh()
    names = {stage.name for stage in stages}
    wanted = names if only is None else set(only)
    for name in sorted(wanted - names):
        raise unknown("stage (--stages)", name, names)
    marks = fingerprints(stages)
    homes = {name: _home(workdir, shared, name, mark) for name, mark in marks.items()}
    for stage in stages:
        _check_recipe(stage, marks[stage.name], homes[stage.name] / "stages" / stage.name)
        if stage.training:
            make_optimizer(stage.training.optimizer, stage.num_steps)
            parallel.check_batch_size(stage.training.batch_size, mesh, f"stage {stage.name!r}")
    products: dict[str, Params] = {}
    for stage in stages:
        if stage.name not in wanted:
            if any(stage.name in other.requires for other in stages if other.name in wanted):
                products[stage.name] = load_product(stage.name, homes[stage.name])
            continue
        home = homes[stage.name]
        directory = home / "stages" / stage.name
        recipe = {"fingerprint": marks[stage.name], "num_steps": stage.num_steps, "settings": _recipe(stage.settings)}
        with parallel.main_first(f"recipe of {stage.name}"):
            if parallel.is_main():
                write_atomically(directory / "stage.json", json.dumps(recipe, indent=1))
        checkpoints = Checkpoints(directory)
        upstream = {name: products[name] for name in stage.requires}
        try:
            if stage.training:
                products[stage.name] = train(stage, upstream, checkpoints, home / "metrics", seed, mesh, profile_dir)
            else:
                products[stage.name] = _compute(stage, upstream, checkpoints, seed, mesh)
        finally:
            checkpoints.close()
    return products


def _compute(
    stage: Stage, upstream: Mapping[str, Params], checkpoints: Checkpoints, seed: int, mesh: jax.sharding.Mesh
) -> Params:
    """Return the product of a stage that needs no training, from its checkpoint if there is one."""
    step = checkpoints.latest()
    if step is not None:
        return checkpoints.restore(step)
    product = parallel.replicate(parallel.as_in_main(stage.init(stage_keys(seed, stage.name).init, upstream)), mesh)
    with preemption.saving_first():
        checkpoints.save(0, product)
        checkpoints.settle()
    return product


def steps_done(name: str, workdir: Path) -> tuple[int | None, int]:
    """Return the progress of a stage in a work directory: the newest saved step and the number of steps.

    The step is None if nothing is saved; a computed stage has 0 steps. Checkpoints are not verified here; see
    `load_product`.

    Raises:
      SbmError: if the stage's `stage.json` is damaged.
    """
    directory = workdir / "stages" / name
    saved = [int(path.name) for path in (directory / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
    return max(saved, default=None), _read_recipe(directory)["num_steps"]


def load_product(name: str, workdir: Path) -> Params:
    """Load the product of a complete stage, without training.

    Raises:
      SbmError: if the stage is not complete or its `stage.json` is damaged.
    """
    directory = workdir / "stages" / name
    num_steps, step = None, None
    if (directory / "stage.json").is_file() and (directory / "checkpoints").is_dir():
        num_steps = _read_recipe(directory)["num_steps"]
        checkpoints = Checkpoints(directory, read_only=True)
        step = checkpoints.latest()
    if step is None or step != num_steps:
        raise SbmError(
            f"stage {name!r} is not complete in {workdir} (step {step or 0}); run the training command without "
            f"--stages, or with {name!r} among them, first."
        )
    state = checkpoints.restore(step)
    checkpoints.close()
    if not num_steps:
        return state
    return state["params"] if state["ema"] is None else state["ema"]
