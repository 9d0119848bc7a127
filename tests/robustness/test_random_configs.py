"""Configs drawn at random: one that is accepted trains a step of each of its stages, and its system is judged."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbm_jax import experiment, experiment_config
from sbm_jax.config import plain
from sbm_jax.distributions import POSTERIORS
from sbm_jax.errors import SbmError
from sbm_jax.evaluation.metrics.coherence import SETS
from sbm_jax.losses.score_matching import WEIGHTINGS
from sbm_jax.networks.score import NETWORKS
from sbm_jax.parameterization import PREDICTIONS
from sbm_jax.sampling import CONDITIONINGS
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.guidance import PAIRS
from sbm_jax.sampling.loop import STARTS
from sbm_jax.sampling.solvers import SOLVERS
from sbm_jax.sde import SDES
from sbm_jax.systems import eb_mvae, joinings
from sbm_jax.systems.methods import METHODS
from sbm_jax.systems.mld import SAMPLERS
from sbm_jax.training.optimizers import SCHEDULES
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config

CHOICES = {
    "mmvae.posterior": POSTERIORS,
    "mmvae_plus.posterior": POSTERIORS,
    "mmvae.estimator": joinings.ESTIMATORS,
    "mmvae_plus.estimator": joinings.ESTIMATORS[1:],
    "private_prior": joinings.PRIVATE_PRIORS,
    "given": joinings.GIVEN,
    "likelihood": ["", "gaussian", "laplace"],
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
    ".form": eb_mvae.FORMS,
    "trace": eb_mvae.TRACES,
    "mld.sampler": SAMPLERS,
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
    values = plain(experiment_config.parse_config(_small(values)))
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
    if path == "evaluation.metrics.coherence.sets":
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
    system = draw(st.sampled_from(sorted(METHODS)))
    return {"systems": (system,)} | {path: draw(_near(path, value)) for path, value in chosen}


NUMBER = r"(-?[\d.e-]+)"
REFUSED = {
    rf"is {NUMBER}; expected a positive number": lambda value: value <= 0,
    rf"must be positive, not {NUMBER}": lambda value: value <= 0,
    rf"is {NUMBER}; expected at least {NUMBER}": lambda value, least: value < least,
    rf"is {NUMBER}; expected {NUMBER} or more": lambda value, least: value < least,
    rf"must be at least {NUMBER}, not {NUMBER}": lambda least, value: value < least,
    rf"must be {NUMBER} or more, not {NUMBER}": lambda least, value: value < least,
    rf"is {NUMBER}; expected 0 (?:\(none\) )?to less than 1": lambda value: not 0 <= value < 1,
    rf"is {NUMBER}; expected 0 to 1\.": lambda value: not 0 <= value <= 1,
    rf"num_real is {NUMBER}; expected 0 \(all\), or {NUMBER} up": lambda value, least: 0 < value < least,
    rf"must satisfy 0 < end_time < start_time <= 1, not end_time = {NUMBER}, start_time = {NUMBER}\.": (
        lambda end, start: not 0 < end < start <= 1
    ),
    rf"must satisfy 0 < min < max, not \({NUMBER}, {NUMBER}\)": lambda least, most: not 0 < least < most,
    rf"width of the transformer must be a multiple of {NUMBER}, not {NUMBER}": lambda unit, value: value % unit > 0,
    rf"resampling_length \({NUMBER}\) must divide num_steps \({NUMBER}\)": lambda block, steps: steps % block > 0,
    rf"aligned_size is {NUMBER}, but the smallest latent has {NUMBER} entries\.": lambda value, most: value > most,
}
"""Patterns of the errors that refuse a number, and whether numbers are to be refused, told from those in the error."""

REFUSED_TOGETHER = {
    r"samples_per_call is \d+; expected a divisor of num_samples": {"num_samples", "samples_per_call"},
    r"needs a score network that has learned marginal scores": {"probability_alone"},
    r"cannot see modalities alone": {"network.name", "probability_alone"},
    r"trained with a single time \(probability_none of 1\) never saw": {"probability_none", "conditioning"},
    r"embeddings of observed modalities only, but conditioning": {"conditioning"},
    r"conditioning 'particles' starts from the prior": {"conditioning", "start"},
    r"conditioning 'particles' .* one Gaussian draw": {"conditioning", "solver", "resampling"},
    r"conditioning 'reference' makes rows and steps depend": {"conditioning", "resampling", "chunk_size"},
    r"steps are too few": {"solver", "num_steps", "beta_max", "grid", "sde.name"},
    r"cannot lay out latents": {"network.name", "latent_size"},
    r"set resampling to 1": {"resampling", "solver"},
    r"a stationary process": {"sampler.grid"},
    r"has no effect with": {"beta", "scale", "num_samples"},
    r"needs Gaussian posteriors": {"mmvae.estimator"},
}
"""Patterns of the errors that refuse settings together, and the settings that can be at fault."""


def is_due(message, changes):
    """Whether these changes are to be refused so: the error must be true, and speak of what was changed."""
    for pattern, is_refused in REFUSED.items():
        if found := re.search(pattern, message):
            numbers = [float(number.rstrip(".")) for number in found.groups()]
            drawn = {float(value) for value in changes.values() if isinstance(value, int | float)}
            return is_refused(*numbers) and not drawn.isdisjoint(numbers)
    for pattern, settings_at_fault in REFUSED_TOGETHER.items():
        if re.search(pattern, message, re.DOTALL):
            return any(path.endswith(name) for path in changes for name in settings_at_fault)
    return False


def _run_some(tmp_path, count):
    write_data(tmp_path / "data")
    values, ran, refused = full_config(tmp_path / "data"), [], []
    base = experiment_config.parse_config(values)

    @settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(changes=changes(values))
    def run(changes):
        workdir = tmp_path / f"run_{len(ran) + len(refused)}"
        try:
            experiment.run(experiment_config.apply_changes(base, changes), workdir)
        except SbmError as error:
            refused.append((str(error), changes))
            return
        ran.append(changes)
        (metrics,) = json.loads((workdir / "results.json").read_text())["systems"].values()
        assert metrics["metrics"]
        assert (workdir / "report" / "index.html").is_file()

    run()
    print(f"{len(ran)} ran, {len(refused)} were refused:", *refused, sep="\n")
    assert ran
    assert not [case for case in refused if not is_due(*case)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_some_random_configs_run(tmp_path):
    _run_some(tmp_path, 6)


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_random_configs_run(tmp_path):
    _run_some(tmp_path, 40)


def test_what_is_refused_without_a_reason_is_told():
    changes = {"systems": ("mld",), "sampler.num_steps": 3, "evaluation.metrics.likelihood.batch_size": 0}
    assert is_due("evaluation.metrics.likelihood.batch_size is 0; expected at least 1.", changes)
    assert not is_due("sampler.num_steps is 3; expected at least 1.", changes)
    assert not is_due("sampler.num_particles is 4; expected at least 5.", changes)
    assert not is_due("system 'sbm_rae_m' needs a score network that has learned marginal scores", changes)
    assert not is_due("these settings are not liked", changes)
