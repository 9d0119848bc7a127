"""A metric in a file of its own, outside of the package, is named in a config and measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import Evaluation, EvaluationConfig, Metric, Subject, check_metrics, evaluate
from sbm_jax.system import Generated
from sbm_jax.types import Split
from tests.extension.metric import Brightness

NAMES = ("photo", "mask", "sound")
SPLIT = Split({name: np.full((12, 2, 2, 1), 100, np.uint8) for name in NAMES})


def twice_as_bright(key, data, observed, num_samples):
    observed = jnp.asarray(observed)
    samples = {
        name: jnp.where(observed[:, m, None, None, None], data[name], 2 * data[name])[:, None]
        for m, name in enumerate(NAMES)
    }
    return Generated(samples, None, {})


def measure(**options):
    brightness = {"name": "tests.extension.metric:Brightness", **options}
    config = EvaluationConfig(8, 8, 4, num_repeats=2, metrics={"brightness": brightness})
    rows = []

    def counted(key, data, observed, num_samples):
        rows.append(np.asarray(observed))
        return twice_as_bright(key, data, observed, num_samples)

    metrics = evaluate(Subject(counted), SPLIT, NAMES, jax.random.key(0), config).metrics
    return metrics, np.concatenate(rows)


def test_a_metric_of_a_third_party_is_measured():
    metrics, observed = measure(modality="photo")
    assert metrics == {"brightness/photo": (pytest.approx(2.0), pytest.approx(0.0), 16, "repeats")}
    assert (observed == [False, True, True]).all(axis=1).sum() >= 16


def test_it_asks_for_what_it_needs():
    _, observed = measure(modality="photo", given=("sound",))
    assert (observed == [False, False, True]).all(axis=1).sum() >= 16


class Like(Brightness):
    """Another metric with the same names."""


class Bare(Brightness):
    """A metric that returns what its options say."""

    def result(self):
        number = super().result().metrics["brightness/photo"].value
        return Evaluation({"bare": number}, {}, {}) if self.options.given else {"bare": number}


def judged(**classes):
    """Measure metrics of this file, {label: (class, given modalities)}."""
    metrics = {
        label: {"name": f"{cls.__module__}:{cls.__name__}", "modality": "photo", "given": given}
        for label, (cls, given) in classes.items()
    }
    config = EvaluationConfig(8, 8, 4, metrics=metrics)
    return evaluate(Subject(twice_as_bright), SPLIT, NAMES, jax.random.key(0), config).metrics


def test_a_name_belongs_to_one_metric():
    with pytest.raises(SbmError, match=r"metrics\.other and \.mine both have 'brightness/photo'\. Leave one out"):
        judged(mine=(Brightness, ()), other=(Like, ()))
    found = judged(mine=(Brightness, ()), other=(Brightness, ("sound",)))
    assert found.keys() == {"mine/brightness/photo", "other/brightness/photo"}


@pytest.mark.parametrize("given", [(), ("sound",)])
def test_what_is_no_evaluation_is_told_with_its_label(given):
    with pytest.raises(
        SbmError, match=r"evaluation\.metrics\.mine returned .*; expected an Evaluation, with an Estimate"
    ):
        judged(mine=(Bare, given))


class Incomplete(Metric):
    """A metric without a result."""


def test_a_metric_without_a_result_is_refused_before_anything_is_trained():
    with pytest.raises(SbmError, match=r"metrics\.mine: class Incomplete lacks result, which every metric needs"):
        EvaluationConfig(metrics={"mine": {"name": f"{__name__}:Incomplete"}})


def test_its_options_are_checked():
    with pytest.raises(SbmError, match=r"evaluation\.metrics\.brightness\.modality is missing"):
        measure()
    with pytest.raises(SbmError, match=r"unknown field of evaluation\.metrics\.brightness: 'modalit'"):
        measure(modality="photo", modalit="mask")
    with pytest.raises(SbmError, match=r"tests\.extension\.metrics"):
        EvaluationConfig(metrics={"brightness": {"name": "tests.extension.metrics:Brightness"}})
    brightness = {"name": "tests.extension.metric:Brightness", "modality": "foto"}
    with pytest.raises(SbmError, match=r"unknown modality of a metric: 'foto'\. Did you mean 'photo'"):
        check_metrics(EvaluationConfig(metrics={"brightness": brightness}), NAMES)
