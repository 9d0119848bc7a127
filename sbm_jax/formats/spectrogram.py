"""Waveforms that networks see as mel spectrograms in decibels, and their synthesis from spectrograms."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import signal

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.formats.base import Format
from sbm_jax.types import Modality


@checked_dataclass
class SpectrogramOptions:
    """How waveforms are analysed.

    Attributes:
      rate: sampling rate in Hz.
      length: T, number of samples of a waveform.
      num_mels: number of bands, spaced evenly on the mel scale from 0 to rate / 2.
      bands: ``"htk"``, triangles of height 1 on the scale 2595 log10(1 + f / 700), or ``"slaney"``, triangles of area 1
        (over frequency in Hz) on librosa's default scale.
      window: length of the Hann window in samples.
      hop: samples from one window to the next, at most half a window.
      decibels: (low, high), the levels that map to 0 and 1. 0 dB is the power of a sine of amplitude 1. Levels outside
        the range are clipped to it.
      pad: pad shorter waveforms with zeros at the end; False to refuse them.
      iterations: iterations of the search for phases in the synthesis.
    """

    rate: int = 16_000
    length: int = 16_000
    num_mels: int = 64
    bands: str = "htk"
    window: int = 512
    hop: int = 250
    decibels: tuple[float, ...] = (-80.0, 0.0)
    pad: bool = False
    iterations: int = 30

    def __post_init__(self):
        for name in ("rate", "num_mels", "hop", "iterations"):
            require(getattr(self, name) >= 1, f"format.options.{name}", getattr(self, name), "at least 1")
        if self.bands not in SCALES:
            raise unknown("format.options.bands:", self.bands, SCALES)
        fits = 2 * self.hop <= self.window <= self.length
        told = f"at least two hops ({2 * self.hop}) and at most the length ({self.length})"
        require(fits, "format.options.window", self.window, told)
        ordered = len(self.decibels) == 2 and self.decibels[0] < self.decibels[1]
        require(ordered, "format.options.decibels", self.decibels, "(low, high)")

    @property
    def num_frames(self) -> int:
        """The number of windows of a spectrogram, centred at the samples 0, hop, 2 hop, ..."""
        return -(-self.length // self.hop)


class Spectrogram(Format):
    """Waveforms [N, T] in [-1, 1], or int16, that networks see as images [frames, mels, 1] in [0, 1].

    The analysis loses phases, the fine structure within bands, and levels outside `decibels`. The synthesis searches
    for a waveform with nearly the same spectrogram, from random initial phases, the same for all rows and calls.

    Reference: D. Griffin and J. Lim, "Signal Estimation from Modified Short-Time Fourier Transform", 1984, with the
      momentum of N. Perraudin, P. Balazs and P. Søndergaard, "A Fast Griffin-Lim Algorithm", 2013.
    """

    Options = SpectrogramOptions
    passes_arrays = True
    is_picture = False  # an image to networks only

    def __init__(self, modality: Modality, options: SpectrogramOptions):
        """Check the shape and bounds of the modality."""
        super().__init__(modality, options)
        where, shape = f"modality {modality.name!r}:", (options.num_frames, options.num_mels, 1)
        told = f"{shape}: (frames, mels, 1), with length / hop = {options.length} / {options.hop} frames, rounded up"
        require(modality.shape == shape, f"{where} shape", modality.shape, told)
        require(modality.bounds == (0.0, 1.0), f"{where} bounds", modality.bounds, "(0, 1), the range of spectrograms")
        window = signal.windows.hann(options.window, sym=False)
        self._transform = signal.ShortTimeFFT(
            window, options.hop, options.rate, fft_mode="onesided2X", scale_to="magnitude"
        )
        self._filters = mel_filters(self._transform.f, options.num_mels, options.rate / 2, options.bands)
        empty = np.flatnonzero(self._filters.sum(axis=1) == 0)
        if len(empty):
            raise SbmError(
                f"{where} band {empty[0]} of {options.num_mels} contains no frequency of a window of {options.window} "
                "samples. Lengthen format.options.window, or lower num_mels."
            )

    # MARK: Analysis

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Convert waveforms [N, T] to spectrograms, float32 [N, frames, mels, 1]; spectrograms are returned unchanged.

        Waveforms are floats in [-1, 1] or int16. With the option `pad` they may be shorter, and an object array of N
        waveforms may mix lengths.

        Raises:
          SbmError: if a waveform has another type, range or length.
        """
        values = np.asarray(values)
        if values.shape[1:] == self.modality.shape:
            return values
        pictures = np.zeros((len(values), *self.modality.shape), np.float32)
        for part in _parts(len(values)):
            waves = np.zeros((len(values[part]), self.options.length))
            for i, wave in enumerate(values[part]):
                wave = self._checked(np.asarray(wave), f"{where}, row {part.start + i},")
                waves[i, : len(wave)] = wave
            pictures[part] = self._analyse(waves)
        return pictures

    def _checked(self, wave: np.ndarray, where: str) -> np.ndarray:
        """Return a checked waveform as floats, not yet padded."""
        length, rate = self.options.length, self.options.rate
        expected = f"waveforms of {length} samples at {rate} Hz, floats in [-1, 1] or int16"
        if wave.ndim != 1 or not (wave.dtype == np.int16 or wave.dtype.kind == "f"):
            raise self.refuse(where, f"is {wave.dtype} {list(wave.shape)}", expected)
        if len(wave) > length or (len(wave) < length and not self.options.pad):
            fix = "Cut it" if len(wave) > length else "Set format.options.pad, which adds silence"
            raise SbmError(
                f"{where} has {len(wave)} samples; modality {self.modality.name!r} expects {expected}. {fix}, or "
                "declare another length."
            )
        if wave.dtype == np.int16:
            return wave / 2**15
        largest = np.abs(wave).max(initial=0.0)
        if not largest <= 1:  # NaN too
            raise self.refuse(where, f"reaches {largest:.4g}", expected)
        return wave

    def _analyse(self, waves: np.ndarray) -> np.ndarray:
        """Return spectrograms [n, frames, mels, 1] of waveforms [n, T]."""
        spectra = self._transform.stft(waves, 0, self.options.num_frames)  # [n, bins, frames]
        power = np.einsum("mk,nkt->ntm", self._filters, np.abs(spectra) ** 2)
        low, high = self.options.decibels
        decibels = 10 * np.log10(np.maximum(power, 10 ** (low / 10)))
        return np.clip((decibels - low) / (high - low), 0, 1)[..., None].astype(np.float32)

    # MARK: Synthesis

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Synthesise waveforms, float32 [N, T] in [-1, 1], with nearly the given spectrograms [N, frames, mels, 1].

        Values of 0 are silent.
        """
        waves = np.zeros((len(array), self.options.length), np.float32)
        for part in _parts(len(array)):
            pictures = np.clip(array[part, ..., 0].astype(np.float64), 0, 1)
            low, high = self.options.decibels
            power = np.where(pictures > 0, 10 ** ((low + (high - low) * pictures) / 10), 0)
            magnitudes = np.sqrt(spread_bands(power, self._filters)).transpose(0, 2, 1)
            waves[part] = np.clip(self._with_magnitudes(magnitudes), -1, 1)
        return waves

    def _with_magnitudes(self, magnitudes: np.ndarray) -> np.ndarray:
        """Return waveforms [n, T] whose spectra have nearly the given magnitudes [n, bins, frames]."""
        transform, length = self._transform, self.options.length
        first, last = transform.p_min, transform.p_max(length)
        declared = slice(-first, -first + self.options.num_frames)  # windows beyond the ends are unconstrained
        phases = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitudes.shape[1:]))
        spectra = np.zeros((*magnitudes.shape[:2], last - first), complex)
        spectra[..., declared] = magnitudes * phases
        before = None
        for _ in range(self.options.iterations):
            found = transform.stft(transform.istft(spectra, k1=length), first, last)
            ahead = found + _MOMENTUM * (0 if before is None else found - before)
            before, spectra = found, ahead
            spectra[..., declared] *= magnitudes / np.maximum(np.abs(ahead[..., declared]), 1e-30)
        return transform.istft(spectra, k1=length)


_MOMENTUM = 0.99
_PART = 64  # rows converted at a time, to bound memory


def _parts(num: int) -> list[slice]:
    return [slice(first, min(first + _PART, num)) for first in range(0, num, _PART)]


# MARK: The mel scale


class Scale(NamedTuple):
    """A mel scale.

    Attributes:
      to_mel: converts frequencies in Hz to mels.
      from_mel: inverse of `to_mel`.
      per_hertz: whether bands have equal area rather than equal height.
    """

    to_mel: Callable[[np.ndarray | float], np.ndarray]
    from_mel: Callable[[np.ndarray | float], np.ndarray]
    per_hertz: bool


def _slaney(frequencies: np.ndarray | float) -> np.ndarray:
    """Convert Hz to mels: linear up to 1000 Hz (3 mels per 200 Hz), logarithmic above (27 mels per factor of 6.4)."""
    above = 15 + 27 * np.log(np.maximum(frequencies, 1000) / 1000) / np.log(6.4)
    return np.where(np.less(frequencies, 1000), np.multiply(frequencies, 3 / 200), above)


def _from_slaney(mels: np.ndarray | float) -> np.ndarray:
    above = 1000 * 6.4 ** ((np.maximum(mels, 15) - 15) / 27)
    return np.where(np.less(mels, 15), np.multiply(mels, 200 / 3), above)


SCALES = {
    "htk": Scale(
        lambda f: 2595 * np.log10(1 + np.divide(f, 700)), lambda m: 700 * (10 ** np.divide(m, 2595) - 1), False
    ),
    "slaney": Scale(_slaney, _from_slaney, True),
}
"""The mel scales of the Hidden Markov Model Toolkit and of M. Slaney's Auditory Toolbox, by name."""


def mel_filters(frequencies: np.ndarray, num_mels: int, highest: float, bands: str = "htk") -> np.ndarray:
    """Return the weights [num_mels, K] of frequencies [K], in Hz, in each band.

    Bands are triangles whose centres are spaced evenly on the mel scale from 0 to `highest` Hz and whose feet are at
    the neighbouring centres. With bands of height 1, the weights of each frequency between the first and the last
    centre sum to 1.
    """
    scale = SCALES[bands]
    centres = scale.from_mel(np.linspace(0, scale.to_mel(highest), num_mels + 2))
    filters = np.stack([np.interp(frequencies, centres[i : i + 3], (0, 1, 0)) for i in range(num_mels)])
    return filters * (2 / (centres[2:] - centres[:-2]))[:, None] if scale.per_hertz else filters


def spread_bands(power: np.ndarray, filters: np.ndarray, iterations: int = 30) -> np.ndarray:
    """Return a non-negative power at each frequency, [..., K], whose power in the bands is `power`, [..., num_mels].

    Starting from an even spread, each iteration multiplies every frequency by the mean ratio of the wanted to the
    current power of its bands (the Richardson-Lucy algorithm). Unlike in least squares, loud bands do not outweigh
    quiet ones.
    """
    reached = np.maximum(filters.sum(axis=0), 1e-12)
    spectrum = (power / filters.sum(axis=1)) @ filters
    for _ in range(iterations):
        present = spectrum @ filters.T
        spectrum = spectrum * ((power / np.maximum(present, 1e-30)) @ filters / reached)
    return spectrum
