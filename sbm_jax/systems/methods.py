"""Registry of this package's methods, and the lookup of methods that configs name."""

from collections.abc import Iterable

from sbm_jax.errors import SbmError
from sbm_jax.registry import find
from sbm_jax.systems import (
    auxiliary_prior,
    diffusion_decoding,
    eb_mvae,
    joint_posterior,
    mld,
    sbm,
    sbm_contrastive,
    sbm_energy,
    sbm_finetuned,
    sbm_marginal,
    supervised,
)
from sbm_jax.systems.method import Method

_FILES = (
    sbm,
    sbm_energy,
    sbm_contrastive,
    sbm_marginal,
    sbm_finetuned,
    eb_mvae,
    mld,
    joint_posterior,
    auxiliary_prior,
)

_GENERATIVE = [method for file in _FILES for method in file.METHODS]
_ALL = (*_GENERATIVE, *map(diffusion_decoding.over, _GENERATIVE), *supervised.METHODS)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""This package's methods by name; the generative ones also with diffusion decoders."""


def find_method(name: str) -> Method:
    """Return the method that a config names.

    Args:
      name: a key of `METHODS`, or ``"package.module:ATTRIBUTE"``.

    Raises:
      SbmError: if there is no such method.
    """
    return find("system (config.systems)", name, METHODS, Method)


def option_groups(systems: Iterable[str]) -> dict[str, type]:
    """Return the option groups {name: dataclass} of this package's methods and of those that a config names.

    Raises:
      SbmError: if a method does not exist, or two methods define different groups of the same name.
    """
    groups: dict[str, type] = {}
    for method in (*METHODS.values(), *map(find_method, systems)):
        for name, cls in method.options.items():
            if groups.setdefault(name, cls) is not cls:
                raise SbmError(
                    f"the options of method {method.name!r} would be config.methods.{name}, a group of another method. "
                    "Give them another name."
                )
    return groups
