"""What a paper is: its choices, and the numbers that it printed."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Published(NamedTuple):
    """A published number and its standard deviation, where it is given."""

    value: float
    std: float | None = None


class ConditionalRow(NamedTuple):
    """A line of Table 5: each modality given the rest, a mean over modalities."""

    name: str
    coherence: Published
    fid: Published


class DirectionsRow(NamedTuple):
    """A line of Table 8: coherence of images given sounds, of sounds given images, and of both from nothing."""

    name: str
    cells: tuple[Published, Published, Published]


class VideoRow(NamedTuple):
    """A line of Table 9: FID of frames and FAD from nothing, and both conditional; None where there is no number."""

    name: str
    cells: tuple[Published | None, Published | None, Published | None, Published | None]


class Choice(NamedTuple):
    """A choice of a paper.

    Attributes:
      text: how it is shown.
      values: the values of our field that mean the same.
    """

    text: str
    values: tuple = ()


def same(value: Any) -> Choice:
    """Return a choice that is a value of our field."""
    return Choice(json.dumps(value), (value,))


class Paper(NamedTuple):
    """The choices and the numbers of a paper.

    Attributes:
      title: authors and title.
      settings: its choices, by the field of our config; a number in a path is an index.
      further: (what, ours, the paper's) of what no field of the config says.
      conditional: Table 5, by system.
      all_agree: share of unconditional samples in which all ten modalities agree, and in which nine do (4.1).
      beta: Table 6, coherence and FID by the weight of the KL divergence; two modalities.
      cosine: Table 7, by modality.
      classifier: accuracy of its classifier on test data (A.2).
      directions: Table 8, by system.
      priors: Table 4 of Diff-MVAE, FID of what is generated from nothing, by system, with N(0, I) and with a score
        model as prior.
      video: Table 9, by system.
      faces: the tables of CelebAMask-HQ, by label and system; their columns are those of `report.faces`.
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
    video: Mapping[str, VideoRow] = MappingProxyType({})
    faces: Mapping[str, Mapping[str, tuple[Published | None, ...]]] = MappingProxyType({})
