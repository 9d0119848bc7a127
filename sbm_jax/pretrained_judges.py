"""Pretrained networks that judge: VGGish hears how near sounds are to real ones."""

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import signal

from sbm_jax import parallel
from sbm_jax.config import build, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.evaluation.config import EvaluationConfig, VggishConfig
from sbm_jax.evaluation.features import FeatureFn, FeatureSpace, in_batches
from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.networks.pretrained import vggish
from sbm_jax.networks.pretrained.weights import read_tensors
from sbm_jax.storage import user_path
from sbm_jax.types import Array, Modality, Params

VGGISH = "vggish"
"""The name of the features of VGGish."""

MEASURES = {"frechet": "fad", "frechet_infinity": "fad_infinity", "kernel": "kad"}
"""What distances are called in the features of VGGish."""

BATCH = 16
"""Rows per call."""

_SECOND = 15_600  # samples that VGGish hears at once


def check(config: EvaluationConfig, modalities: Sequence[Modality]) -> None:
    """Raise `SbmError` for files that can not be read, or do not fit the modalities, before anything is trained."""
    del modalities
    if config.vggish.weights:
        _read_vggish(config.vggish)


@functools.cache
def content(path: Path) -> str:
    """Return a digest of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def contents(config: EvaluationConfig) -> list[str]:
    """Return digests of all files of pretrained judges."""
    files = {"evaluation.vggish.weights": config.vggish.weights}
    return [content(user_path(path, option)) for option, path in files.items() if path]


# MARK: VGGish


def vggish_space(config: VggishConfig, modalities: Sequence[Modality], cache: Path) -> FeatureSpace | None:
    """Return the features of VGGish of all sounds; None where there are no weights, or no sounds.

    Real and generated spectrograms are made into waveforms alike, so that distances are those of what the system
    generates, not of what is lost with the phases.

    Raises:
      SbmError: if the weights can not be read.
    """
    sounds = [modality for modality in modalities if isinstance(make_format(modality), Spectrogram)]
    if not config.weights or not sounds:
        return None
    network, params = _network(config), _read_vggish(config)
    compiled = parallel.over_rows(lambda params, waves: _vggish_features(network, params, waves))
    extract = {modality.name: _of_sound(modality, lambda waves: compiled(params, waves)) for modality in sounds}
    path = user_path(config.weights, "evaluation.vggish.weights")
    recipe = repr([content(path), plain(config.network), [plain(modality.format) for modality in sounds]])
    fingerprint = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    return FeatureSpace(VGGISH, extract, fingerprint, cache, MEASURES)


def _network(config: VggishConfig) -> vggish.VggishConfig:
    return build(vggish.VggishConfig, config.network, "evaluation.vggish.network")


def _read_vggish(config: VggishConfig) -> Params:
    option = "evaluation.vggish.weights"
    return vggish.read_vggish(_network(config), read_tensors(config.weights, option), option)


def _vggish_features(network: vggish.VggishConfig, params: Params, waves: Array) -> Array:
    """Return features [B, P, E] of waveforms [B, N], for P windows of 0.96 s."""
    patches = vggish.mel_patches(waves)
    features = vggish.Vggish(network).apply({"params": params}, patches.reshape(-1, *patches.shape[2:]))
    return features.reshape(*patches.shape[:2], -1)


def _of_sound(modality: Modality, features_of: FeatureFn) -> FeatureFn:
    """Return the function from spectrograms [B, *shape] to features [B, P, E]."""
    form = make_format(modality)

    def extract(pictures: np.ndarray) -> np.ndarray:
        finite = np.nan_to_num(in_units({"": pictures})[""])
        return features_of(as_heard(form.to_raw(np.asarray(finite)), form.options.rate))

    return in_batches(extract, BATCH)


def as_heard(waves: np.ndarray, rate: int) -> np.ndarray:
    """Return waveforms as VGGish hears them, float32 [B, N]: with silence at the end where they have no whole window.

    Args:
      waves: [B, T] in [-1, 1].
      rate: their samples a second; those that are returned have 16,000.
    """
    common = math.gcd(rate, vggish.RATE)
    resampled = signal.resample_poly(waves, vggish.RATE // common, rate // common, axis=1)
    missing = max(0, _SECOND - resampled.shape[1])
    return np.pad(resampled, ((0, 0), (0, missing))).astype(np.float32)
