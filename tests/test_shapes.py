"""Tests that annotated shapes are checked at run time, in the modules that pyproject.toml names."""

import importlib

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from sbm_jax.distributions import gaussian_kl, standard_normal_kl
from sbm_jax.losses.bounds import BoundTerms
from sbm_jax.losses.masked import masked_mean
from sbm_jax.sampling.noise import row_keys
from sbm_jax.tokens import by_token


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (masked_mean, (jnp.ones(3), jnp.ones(4, bool))),
        (masked_mean, (jnp.ones(3), jnp.ones(3))),
        (standard_normal_kl, (jnp.ones((2, 3)), jnp.ones((2, 4)))),
        (row_keys, (jnp.zeros(2, jnp.uint32), jnp.arange(3))),
        (by_token, (jnp.ones(3), ())),
    ],
)
def test_a_wrong_shape_or_type_is_refused(function, arguments):
    with pytest.raises(jaxtyping.TypeCheckError):
        function(*arguments)


def test_every_checked_module_exists(pytestconfig):
    *modules, checker = pytestconfig.getoption("--jaxtyping-packages").split(",")
    assert checker == "beartype.beartype"
    for name in modules:
        importlib.import_module(name)
    assert gaussian_kl.__module__ in modules


def test_a_pytree_may_hold_other_leaves():
    shapes = jax.eval_shape(lambda: BoundTerms(jnp.zeros(3), jnp.zeros(3)))
    assert shapes.reconstruction.shape == (3,)
    assert jax.tree.map(jnp.shape, shapes).regulariser == (3,)
