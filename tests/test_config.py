import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from sbm_jax.config import build, changed, plain
from sbm_jax.data.arrays import ArraysConfig
from sbm_jax.errors import SbmError
from sbm_jax.experiment import run
from sbm_jax.experiment_config import Variation, parse_config, read_config
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.classifier import ClassifierConfig
from sbm_jax.systems.joinings import Mopoe
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.types import Modality, TrainingConfig
from tests.robustness.tiny import get_config


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    names: tuple[str, ...] = ()
    maybe: int | None = None
    many: tuple[Inner, ...] = ()


def test_build_makes_nested_dataclasses_and_plain_undoes_it():
    values = {"inner": {"size": 3, "rate": 1}, "names": ["a"], "many": [{"size": 1}]}
    outer = build(Outer, ConfigDict(values), "config.c")
    assert outer == Outer(Inner(3, 1.0), ("a",), None, (Inner(1),))
    assert build(Outer, plain(outer), "config.c") == outer


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"size": 3, "rat": 1}}, "unknown field of config.c.inner: 'rat'. Did you mean 'rate'?"),
        ({"inner": {}}, "config.c.inner.size is missing"),
        ({"inner": {"size": "3"}}, "config.c.inner.size must be int, not '3'"),
        ({"inner": {"size": True}}, "must be int, not True"),
        ({"inner": 3}, "must be a group of fields"),
        ({"inner": {"size": 3}, "names": "a"}, "config.c.names must be a tuple"),
        ({"inner": {"size": 3}, "many": [{"size": 1.5}]}, r"config.c.many\[0\].size must be int"),
    ],
)
def test_bad_values_get_one_clear_error(values, message):
    with pytest.raises(SbmError, match=message):
        build(Outer, values, "config.c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mopoe(beta="1"), "Mopoe.beta must be float"),
        (lambda: Mopoe(scale="1"), "Mopoe.scale must be float"),
        (lambda: Variation("beta", "1", changes="zz"), "changes must be a group of fields"),
        (lambda: SamplerOptions(num_steps=10**400), "integer of 64 bits"),
        (lambda: SamplerOptions(snr=10**400), "must be finite"),
        (lambda: Modality("a", (3,), 4, bounds=(0, np.nan)), "must be finite"),
        (lambda: ClassifierConfig(TrainingConfig(1, 2), hidden=-1), "classifier.hidden is -1"),
        (lambda: ClassifierConfig(TrainingConfig(1, 2), dropout=1.0), "classifier.dropout is 1.0"),
        (lambda: ClassifierConfig(TrainingConfig(1, 2), widths=()), "classifier.widths"),
        (lambda: AutoencoderConfig(TrainingConfig(1, 2), beta=-1.0), "autoencoder.beta is -1.0"),
        (lambda: AutoencoderConfig(TrainingConfig(1, 2), rae_noise=-1.0), "autoencoder.rae_noise"),
        (lambda: ArraysConfig(seed=-1), "data.arrays.seed"),
        (lambda: Modality("label", (3,), 4), "modality: name is 'label'; expected .* neither 'label'"),
        (lambda: Modality("label.size", (3,), 4), "modality: name is 'label.size'; expected .* neither 'label'"),
    ],
)
def test_options_are_checked_however_they_are_made(make, message):
    with pytest.raises(SbmError, match=message):
        make()


def test_changes_reach_groups_inside_and_wrong_ones_are_named():
    training = TrainingConfig(5)
    assert changed(training, {"optimizer": {"learning_rate": 0.5}}, "x").optimizer.learning_rate == 0.5
    assert changed(training, {"optimizer": {"learning_rate": 0.5}}, "x").num_steps == 5
    assert changed(training, {}, "x") is training
    for wrong, message in (({"num_steps": {"a": 1}}, "x.num_steps"), ({"optimizer": {"rate": 1}}, "'rate'")):
        with pytest.raises(SbmError, match=message):
            changed(training, wrong, "x")


def test_numbers_of_numpy_and_whole_numbers_are_taken():
    assert Modality("a", (np.int64(3),), 4, bounds=(0, 1)) == Modality("a", (3,), 4, bounds=(0.0, 1.0))
    assert Modality("labels", (3,), 4).name == "labels"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, "runs/x"), "expected an ExperimentConfig"),
        ((None, "runs/x"), "config is of type NoneType"),
    ],
)
def test_a_run_wants_a_config(arguments, message):
    with pytest.raises(SbmError, match=message):
        run(*arguments)


@pytest.mark.parametrize(
    ("workdir", "stages", "message"),
    [(3, None, "workdir is 3"), ("x", "classifier", "stages is"), ("x", 3, "stages is")],
)
def test_a_run_wants_a_path_and_names_of_stages(workdir, stages, message):
    with pytest.raises(SbmError, match=message):
        run(parse_config(get_config()), workdir, stages)


def test_a_work_directory_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "old", "systems": ["sbm_vae_c"], "energy": {"strength": 1.0}}')
    for use in (lambda: read_config(tmp_path), lambda: run(parse_config(get_config()), tmp_path)):
        with pytest.raises(SbmError, match=r"an earlier version of .*Train in a new work directory") as caught:
            use()
        assert str(tmp_path) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]
