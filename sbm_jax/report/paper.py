"""The data structure of a paper: its choices and its published numbers."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Published(NamedTuple):
    """A published number and its standard deviation, or None if it is not given."""

    value: float
    std: float | None = None


class ConditionalRow(NamedTuple):
    """A line of Table 5: each modality given the rest, averaged over modalities."""

    name: str
    coherence: Published
    fid: Published


class DirectionsRow(NamedTuple):
    """A line of Table 8: coherence of images given sounds, of sounds given images, and of unconditional pairs."""

    name: str
    cells: tuple[Published, Published, Published]


class Choice(NamedTuple):
    """A choice of a paper.

    Attributes:
      text: the text to show.
      values: values of our config field that mean the same.
    """

    text: str
    values: tuple = ()


def numbers(*cells: tuple[float, float] | None) -> tuple[Published | None, ...]:
    """Build a line of a table from (value, spread), or None, for each cell."""
    return tuple(None if cell is None else Published(*cell) for cell in cells)


def same(value: Any) -> Choice:
    """Return a choice that equals a value of our field."""
    return Choice(json.dumps(value), (value,))


class Paper(NamedTuple):
    """The choices and the numbers of a paper.

    Attributes:
      title: authors and title.
      settings: the paper's choices, by path of our config; a number in a path is an index.
      further: (what, ours, the paper's) for choices that no field of the config covers.
      conditional: Table 5, by system.
      all_agree: shares of unconditional samples in which all ten modalities, and in which nine, agree (4.1).
      beta: Table 6, coherence and FID by the weight of the KL divergence; two modalities.
      cosine: Table 7, by modality.
      classifier: accuracy of its classifier on test data (A.2).
      directions: Table 8, by system.
      priors: Table 4 of Diff-MVAE, FID of unconditional samples by system, with N(0, I) and with a score model as
        prior.
      tables: the tables whose columns are metrics, by label and system; for their columns see `report.tables`.
    """

    title: str
    settings: dict[str, Choice]
    further: tuple[tuple[str, str, str], ...]
    conditional: Mapping[str, ConditionalRow] = MappingProxyType({})
    all_agree: tuple[Published, Published] | None = None
    beta: Mapping[str, tuple[Published, Published]] = MappingProxyType({})
    cosine: tuple[float, ...] = ()
    classifier: Published | None = None
    directions: Mapping[str, DirectionsRow] = MappingProxyType({})
    priors: Mapping[str, tuple[Published, Published]] = MappingProxyType({})
    tables: Mapping[str, Mapping[str, tuple[Published | None, ...]]] = MappingProxyType({})
