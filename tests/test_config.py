import dataclasses

import pytest
from ml_collections import ConfigDict

from sbm_jax.config import build, plain
from sbm_jax.errors import SbmError


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
