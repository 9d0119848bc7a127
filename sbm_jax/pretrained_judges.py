"""Pretrained judges: VGGish compares sounds with real ones, CLIP compares images with texts."""

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from sbm_jax import parallel
from sbm_jax.config import build, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError, require
from sbm_jax.evaluation.batches import finite_rows
from sbm_jax.evaluation.config import ClipConfig, EvaluationConfig, VggishConfig
from sbm_jax.evaluation.features import FeatureFn, FeatureSpace, in_batches
from sbm_jax.evaluation.metrics.base import EmbedFn
from sbm_jax.evaluation.metrics.clip_score import ClipScore
from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.formats.tokenizer_files import padded, read_tokenizer
from sbm_jax.networks.pretrained import clip, vggish
from sbm_jax.networks.pretrained.weights import read_tensors
from sbm_jax.storage import user_path
from sbm_jax.types import Array, Data, Modality, Params

VGGISH = "vggish"
"""The name of the features of VGGish."""

MEASURES = {"frechet": "fad", "frechet_infinity": "fad_infinity", "kernel": "kad"}
"""Names of the distances in the features of VGGish."""

BATCH = {"cpu": 16}
"""Rows per call, by platform; `ACCELERATOR_BATCH` on all others."""

ACCELERATOR_BATCH = 250

_SECOND = 15_600  # samples in a window of VGGish


def batch_size() -> int:
    """Return the rows per call."""
    return BATCH.get(jax.default_backend(), ACCELERATOR_BATCH)


def may_be_image(modality: Modality) -> bool:
    """Return whether a modality has the shape of grey or RGB images or videos, and values in [0, 1]."""
    unit = modality.bounds == (0.0, 1.0) or (not modality.bounds and modality.likelihood == "bernoulli")
    return len(modality.shape) in (3, 4) and modality.shape[-1] in (1, 3) and unit


def check(config: EvaluationConfig, modalities: Sequence[Modality]) -> None:
    """Raise `SbmError` for files that cannot be read, or do not fit the modalities, before anything is trained."""
    if config.vggish.weights:
        _read_vggish(config.vggish)
    if config.clip.weights:
        _read_clip(config.clip)
    by_name = {modality.name: modality for modality in modalities}
    for _, cls, options in config.chosen():
        if issubclass(cls, ClipScore):
            _check_pair(by_name[options.image], by_name[options.text])


@functools.cache
def content(path: Path) -> str:
    """Return a digest of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def contents(config: EvaluationConfig) -> list[str]:
    """Return digests of all files of pretrained judges."""
    files = {"evaluation.vggish.weights": config.vggish.weights}
    files |= {f"evaluation.clip.{name}": getattr(config.clip, name) for name in ("weights", "tokenizer")}
    return [content(user_path(path, option)) for option, path in files.items() if path]


# MARK: VGGish


def vggish_space(config: VggishConfig, modalities: Sequence[Modality], cache: Path) -> FeatureSpace | None:
    """Return the VGGish features of all sounds; None without weights, or without sounds.

    Real and generated spectrograms are both converted to waveforms, so that distances measure what the system
    generates, not what is lost with the phases.

    Raises:
      SbmError: if the weights cannot be read.
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

    return in_batches(extract, batch_size())


def as_heard(waves: np.ndarray, rate: int) -> np.ndarray:
    """Resample waveforms for VGGish, float32 [B, N], and pad those shorter than a window with silence at the end.

    Args:
      waves: [B, T] in [-1, 1].
      rate: their sampling rate in Hz; the result has 16 kHz.
    """
    common = math.gcd(rate, vggish.RATE)
    resampled = signal.resample_poly(waves, vggish.RATE // common, rate // common, axis=1)
    missing = max(0, _SECOND - resampled.shape[1])
    return np.pad(resampled, ((0, 0), (0, missing))).astype(np.float32)


# MARK: CLIP


def clip_fn(config: ClipConfig, modalities: Sequence[Modality]) -> EmbedFn | None:
    """Return the function from images and texts to unit vectors [B, E], `Tools.clip`; None without weights.

    Texts with more tokens than the network has positions are truncated.

    Raises:
      SbmError: if the files cannot be read, or do not belong together.
    """
    if not config.weights:
        return None
    network, params, tokenizer = _read_clip(config)
    by_name = {modality.name: modality for modality in modalities}
    module = clip.Clip(network)

    @parallel.over_rows
    def of_images(params: Params, images: Array) -> Array:
        images = clip.as_clip_input(jnp.clip(images, 0.0, 1.0), network.image_size)
        return _unit(module.apply({"params": params}, images, method="embed_images"))

    @parallel.over_rows
    def of_texts(params: Params, ids: Array) -> Array:
        return _unit(module.apply({"params": params}, ids, method="embed_texts"))

    def embed(data: Data) -> dict[str, np.ndarray]:
        vectors = {}
        for name, rows in data.items():
            modality, rows = by_name[name], np.asarray(rows)
            if modality.vocabulary_size:
                ids = clip_ids(tokenizer, make_format(modality).to_raw(rows).tolist(), network)
                found = in_batches(lambda batch: of_texts(params, batch), batch_size())(ids)
            else:
                found = in_batches(lambda batch: of_images(params, np.nan_to_num(batch)), batch_size())(rows)
            vectors[name] = np.where(finite_rows(rows)[:, None], found, np.nan)
        return vectors

    return embed


def _unit(vectors: Array) -> Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def _read_clip(config: ClipConfig) -> tuple[clip.ClipConfig, Params, Any]:
    """Return the network's config, its parameters and the tokenizer."""
    network = build(clip.ClipConfig, config.network, "evaluation.clip.network")
    option = "evaluation.clip.tokenizer"
    tokenizer = read_tokenizer(config.tokenizer, option)
    clip_ids(tokenizer, ["a"], network)
    params = clip.read_clip(network, read_tensors(config.weights, "evaluation.clip.weights"), "evaluation.clip.weights")
    return network, params, tokenizer


def clip_ids(tokenizer: Any, texts: Sequence[str], network: clip.ClipConfig) -> np.ndarray:
    """Return the token ids of texts, int32 [N, most_tokens], each text ending with the last id of the vocabulary.

    Raises:
      SbmError: if the tokenizer ends a text with another id.
    """
    length, end = network.most_tokens, network.vocabulary_size - 1
    rows = []
    for encoded in tokenizer.encode_batch(list(texts)):
        ids = encoded.ids
        if not ids or ids[-1] != end:
            raise SbmError(
                f"evaluation.clip.tokenizer ends a text with the id {ids[-1:]}; expected [{end}], the last of CLIP's "
                "vocabulary. Name the tokenizer.json that comes with the weights."
            )
        rows.append(ids if len(ids) <= length else [*ids[: length - 1], end])
    return padded(rows, length, end)


def _check_pair(image: Modality, text: Modality) -> None:
    """Raise `SbmError` for modalities that CLIP cannot compare."""
    where = "config.evaluation.metrics.clip_score"
    pictures = may_be_image(image) and len(image.shape) == 3
    require(pictures, f"{where}.image", image.name, "images of one or three channels with bounds (0, 1)")
    texts = text.vocabulary_size and make_format(text).is_text
    require(bool(texts), f"{where}.text", text.name, "a modality with a format of texts")
