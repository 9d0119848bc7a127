"""How a run's choices compare with those of the paper that its config names."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sbm_jax.errors import unknown
from sbm_jax.report.paper import Paper
from sbm_jax.report.published import PAPERS


def paper_of(name: str | None) -> Paper | None:
    """Return the paper named by `config.published`, or None if there is none.

    Raises:
      SbmError: if it is unknown.
    """
    if not name:
        return None
    if name not in PAPERS:
        raise unknown("paper (config.published)", name, PAPERS)
    return PAPERS[name]


def differences(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (field, ours, the paper's) for each choice in which a run differs from the paper."""
    paper = paper_of(results.get("published"))
    if paper is None:
        return []
    rows = []
    for path, choice in paper.settings.items():
        value = _at(results.get("config", {}), path)
        if value is not None and value not in choice.values:
            rows.append((path, json.dumps(value), choice.text))
    return [*rows, *paper.further]


def judged_modalities(results: Mapping[str, Any]) -> Sequence[str]:
    """Return the modalities whose distances from real data were measured; () for all."""
    return _at(results.get("config", {}), "evaluation.metrics.frechet.modalities") or ()


def _at(config: Any, path: str) -> Any:
    """Return the value at a dotted path, or None."""
    for part in path.split("."):
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, Sequence) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config
