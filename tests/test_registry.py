"""Names in configs."""

import pytest

from sbm_jax import registry
from sbm_jax.errors import SbmError

KNOWN = {"one": 1, "two": 2}


def test_own_parts_are_found_by_name_and_others_by_import():
    assert registry.find("number", "two", KNOWN) == 2
    assert registry.find("number", "tests.test_registry:KNOWN", {}) == KNOWN


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oen", "unknown number 'oen'. Did you mean 'one'"),
        ("no.such.package:NAME", "number 'no.such.package:NAME': No module named 'no'"),
        ("tests.test_registry:MISSING", "has no attribute 'MISSING'"),
    ],
)
def test_what_is_not_there_is_named(name, message):
    with pytest.raises(SbmError, match=message):
        registry.find("number", name, KNOWN)
