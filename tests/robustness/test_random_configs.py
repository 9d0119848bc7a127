"""Configs drawn at random: one that is accepted trains a step of each of its stages, and its system is judged."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbm_jax import experiment
from sbm_jax.config import plain
from sbm_jax.errors import SbmError
from sbm_jax.evaluation.evaluator import SETS
from sbm_jax.losses.score_matching import WEIGHTINGS
from sbm_jax.networks.score import NETWORKS, PREDICTIONS
from sbm_jax.sampling import CONDITIONINGS
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.guidance import PAIRS
from sbm_jax.sampling.loop import STARTS
from sbm_jax.sampling.solvers import SOLVERS
from sbm_jax.sde import SDES
from sbm_jax.systems import eb_mvae
from sbm_jax.systems.mld import SAMPLERS
from sbm_jax.training.optimizers import SCHEDULES
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config

CHOICES = {
    "network.name": NETWORKS,
    "sde.name": SDES,
    "prediction": PREDICTIONS,
    "weighting": WEIGHTINGS,
    "posterior": ["sample", "mean"],
    "dtype": ["float32", "bfloat16"],
    "schedule": SCHEDULES,
    "solver": SOLVERS,
    "grid": GRIDS,
    "conditioning": CONDITIONINGS,
    "start": STARTS,
    "pairs": PAIRS,
    "kind": eb_mvae.KINDS,
    "trace": eb_mvae.TRACES,
    "mld.sampler": SAMPLERS,
    "variant": ["original", "sbm_paper"],
}
"""Values of settings that are words, by the end of their path."""

FIXED = ("training.num_steps", "training.batch_size", "data", "modalities", "joint", "num_examples", "published")


def _small(group):
    """Give the settings of training everywhere such values that it is one step."""
    if not isinstance(group, dict):
        return group
    made = {name: _small(value) for name, value in group.items()}
    if "optimizer" in made:
        made |= {"num_steps": 1, "batch_size": 8, "steps_per_dispatch": 1, "checkpoint_every": 0, "validate_every": 0}
    return made


def full_config(directory):
    """Return the values of a config with the settings of every system, in which a stage is one step."""
    values = plain(get_config(str(directory)).to_dict())
    values["score"] |= {"probability_alone": 0.2}
    values["evaluation"] |= {"num_examples": 8, "num_unconditional": 8, "batch_size": 8}
    values = plain(experiment.parse_config(_small(values)))
    values["data"]["arrays"]["directory"] = str(directory)
    return values


def _paths(values, prefix=""):
    if isinstance(values, dict):
        return [path for name, value in values.items() for path in _paths(value, f"{prefix}.{name}".lstrip("."))]
    return [(prefix, values)]


def _near(path, value):
    """Return a strategy for values that a setting may have."""
    words = [words for end, words in CHOICES.items() if path.endswith(end)]
    if words:
        return st.sampled_from(sorted(words[0]))
    if path == "evaluation.sets":
        return st.lists(st.sampled_from(sorted(SETS)), min_size=1, max_size=2, unique=True)
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(0, 5)
    if isinstance(value, float):
        return st.sampled_from([0.0, 1e-3, 0.1, 0.5, 1.0, 2.0])
    if path.endswith("widths"):
        return st.lists(st.integers(1, 9), max_size=2)
    return st.just(value)


@st.composite
def changes(draw, values):
    """A system, and up to three settings that are drawn anew."""
    paths = [(path, value) for path, value in _paths(values) if path != "systems" and not any(f in path for f in FIXED)]
    chosen = draw(st.lists(st.sampled_from(paths), max_size=3, unique_by=lambda pair: pair[0]))
    system = draw(st.sampled_from(sorted(experiment.SYSTEMS)))
    return {"systems": (system,)} | {path: draw(_near(path, value)) for path, value in chosen}


@pytest.mark.slow
def test_random_configs_run(tmp_path):
    write_data(tmp_path / "data")
    values, ran, refused = full_config(tmp_path / "data"), [], []
    base = experiment.parse_config(values)

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(changes=changes(values))
    def run(changes):
        workdir = tmp_path / f"run_{len(ran) + len(refused)}"
        try:
            experiment.run(experiment.apply_changes(base, changes), workdir)
        except SbmError as error:
            refused.append((changes, error))
            return
        ran.append(changes)
        (metrics,) = json.loads((workdir / "results.json").read_text())["systems"].values()
        assert metrics["metrics"]
        assert (workdir / "report" / "index.html").is_file()

    run()
    print(f"{len(ran)} ran, {len(refused)} were refused:", *refused, sep="\n")
    assert len(ran) >= len(refused)
