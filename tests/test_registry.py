"""Names in configs."""

from collections.abc import Callable

import pytest

from sbm_jax import registry
from sbm_jax.data import DataConfig, load
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, make_codec
from sbm_jax.networks.score import ScoreNetworkConfig, make_score_model
from sbm_jax.sde import VP
from sbm_jax.systems.methods import find_method
from sbm_jax.types import CodecConfig, Modality

KNOWN = {"one": 1, "two": 2}


def test_own_parts_are_found_by_name_and_others_by_import():
    assert registry.find("number", "two", KNOWN, int) == 2
    assert registry.find("number", "tests.test_registry:KNOWN", {}, dict) == KNOWN


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oen", "unknown number 'oen'. Did you mean 'one'"),
        ("no.such.package:NAME", "number 'no.such.package:NAME': ModuleNotFoundError: No module named 'no'"),
        ("tests.test_registry:MISSING", "has no attribute 'MISSING'"),
        (":NAME", "number ':NAME': ValueError: Empty module name"),
        (".relative:NAME", "number '.relative:NAME': TypeError: "),
        (3, "number is 3; expected a name"),
        (["one"], "number is .*; expected a name"),
        ("tests.test_registry:KNOWN", "number 'tests.test_registry:KNOWN' is of type dict; expected one of type .*int"),
        ("sbm_jax:errors", "of type module; expected one of type .*int"),
    ],
)
def test_what_is_not_there_is_named(name, message):
    with pytest.raises(SbmError, match=message):
        registry.find("number", name, KNOWN, int)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def f(:\n", "SyntaxError: "),
        ("raise RuntimeError('first\\nsecond')\n", "RuntimeError: first second. Expected"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_told(tmp_path, monkeypatch, content, message):
    (tmp_path / "of_others.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SbmError, match=f"number 'of_others:X': {message}"):
        registry.find("number", "of_others:X", KNOWN, int)


def test_classes_and_what_is_called_are_told_apart():
    assert registry.find("error", "sbm_jax.errors:SbmError", {}, type[Exception]) is SbmError
    assert registry.find("maker", "sbm_jax.errors:SbmError", {}, Callable) is SbmError
    for name in ("tests.test_registry:KNOWN", "tests.test_registry:Callable"):
        with pytest.raises(SbmError, match=r"expected a subclass of builtins\.Exception"):
            registry.find("error", name, {}, type[Exception])
    with pytest.raises(SbmError, match=r"of type dict; expected one of type collections\.abc\.Callable"):
        registry.find("maker", "tests.test_registry:KNOWN", {}, Callable)


@pytest.mark.parametrize("part", ["sbm_jax:errors", "sbm_jax.lock:__doc__", "sbm_jax.errors:SbmError"])
def test_parts_of_a_wrong_type_are_told_of_each_kind(part, tmp_path):
    modality = Modality("a", (2,), 2, codec=CodecConfig(part))
    for what, use in (
        ("codec", lambda: make_codec(modality, AutoencoderNetworkConfig())),
        ("data set", lambda: load(DataConfig(part), tmp_path)),
        ("metric", lambda: EvaluationConfig(metrics={"mine": {"name": part}})),
        ("system", lambda: find_method(part)),
    ):
        with pytest.raises(SbmError, match=f"{what} .*'{part}' is .*; expected "):
            use()
    with pytest.raises(SbmError, match=r"network: .* is of type str; expected"):
        make_score_model(ScoreNetworkConfig("sbm_jax.lock:__doc__"), VP(), "noise")
