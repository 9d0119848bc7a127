"""Waveforms that networks see as log-magnitude mel spectrograms, as in HiFi-GAN and AudioLDM."""

import dataclasses
import functools
import math

import jax
import numpy as np
from scipy import signal

from sbm_jax.config import build, checked_dataclass
from sbm_jax.errors import require
from sbm_jax.formats.spectrogram import Spectrogram, SpectrogramOptions, spread_bands
from sbm_jax.networks.pretrained.hifi_gan import HifiGan, HifiGanConfig, read_hifi_gan
from sbm_jax.networks.pretrained.weights import read_tensors
from sbm_jax.types import Modality


@checked_dataclass
class LogMelOptions(SpectrogramOptions):
    """How waveforms are analysed; the defaults match AudioLDM's networks, and `decibels` has no effect.

    Attributes:
      logarithms: (low, high), the natural log magnitudes that map to 0 and 1.
      vocoder: a safetensors file of HiFi-GAN, which synthesises waveforms; "" for the search for phases (Griffin-Lim).
      network: sizes of the vocoder where they differ from AudioLDM's.
    """

    num_mels: int = 64
    bands: str = "slaney"
    window: int = 1024
    hop: int = 160
    logarithms: tuple[float, ...] = (math.log(1e-5), 2.5)
    vocoder: str = ""
    network: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        ordered = len(self.logarithms) == 2 and self.logarithms[0] < self.logarithms[1]
        require(ordered, "format.options.logarithms", self.logarithms, "(low, high)")


class LogMel(Spectrogram):
    """Waveforms [N, T] in [-1, 1], or int16, that networks see as images [frames, mels, 1] in [0, 1].

    Where `Spectrogram` uses the power in decibels, this uses what vocoders expect: the magnitude of an unnormalised
    Fourier transform, summed over each band. Waveforms are padded with silence at both ends.

    Reference: J. Kong et al., "HiFi-GAN", 2020. https://arxiv.org/abs/2010.05646
    """

    Options = LogMelOptions

    def __init__(self, modality: Modality, options: LogMelOptions):
        """Check the shape of the modality and the vocoder's sizes."""
        super().__init__(modality, options)
        # The transform's window sums to 1, and it is one-sided: half of the frequencies represent all.
        self._sum = signal.windows.hann(options.window, sym=False).sum() / 2
        if options.vocoder:
            sizes = self._sizes
            fits = (sizes.num_bands, math.prod(sizes.rates)) == (options.num_mels, options.hop)
            told = f"num_bands {options.num_mels}, and rates whose product is the hop ({options.hop})"
            require(fits, f"modality {modality.name!r}: format.options.network", options.network, told)

    def _analyse(self, waves: np.ndarray) -> np.ndarray:
        """Return spectrograms [n, frames, mels, 1] of waveforms [n, T]."""
        spectra = self._transform.stft(waves, 0, self.options.num_frames)  # [n, bins, frames]
        bands = np.einsum("mk,nkt->ntm", self._filters, self._sum * np.abs(spectra))
        low, high = self.options.logarithms
        heights = (np.log(np.maximum(bands, math.exp(low))) - low) / (high - low)
        return np.clip(heights, 0, 1)[..., None].astype(np.float32)

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Synthesise waveforms, float32 [N, T] in [-1, 1], from spectrograms [N, frames, mels, 1].

        Uses the vocoder if there is one.

        Raises:
          SbmError: if the vocoder's file cannot be read or belongs to another network.
        """
        waves = np.zeros((len(array), self.options.length), np.float32)
        for start in range(0, len(array), _PART):
            pictures = np.clip(array[start : start + _PART, ..., 0].astype(np.float32), 0, 1)
            low, high = self.options.logarithms
            logarithms = low + (high - low) * pictures
            made = self._by_network(logarithms) if self.options.vocoder else self._by_search(logarithms)
            waves[start : start + len(made)] = np.clip(made[:, : self.options.length], -1, 1)
        return waves

    def _by_search(self, logarithms: np.ndarray) -> np.ndarray:
        low = self.options.logarithms[0]
        bands = np.where(logarithms > low, np.exp(logarithms), 0.0)
        return self._with_magnitudes(spread_bands(bands, self._filters).transpose(0, 2, 1) / self._sum)

    def _by_network(self, logarithms: np.ndarray) -> np.ndarray:
        params = _vocoder(self.options.vocoder, self._sizes)
        return np.asarray(_speak(self._sizes, params, logarithms))

    @property
    def _sizes(self) -> HifiGanConfig:
        where = f"modality {self.modality.name!r}: format.options.network"
        return build(HifiGanConfig, self.options.network, where)

    def check_files(self) -> None:
        """Raise `SbmError` if the vocoder's file cannot be read or belongs to another network."""
        if self.options.vocoder:
            _vocoder(self.options.vocoder, self._sizes)


_PART = 16  # rows converted at a time, to bound memory


@functools.lru_cache(maxsize=2)
def _vocoder(path: str, sizes: HifiGanConfig):
    return read_hifi_gan(sizes, read_tensors(path, "format.options.vocoder"), "format.options.vocoder")


@functools.partial(jax.jit, static_argnums=0)
def _speak(sizes: HifiGanConfig, params, logarithms):
    return HifiGan(sizes).apply({"params": params}, logarithms)
