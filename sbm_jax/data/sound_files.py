"""Reads sound files."""

import pathlib
import struct
import warnings

import numpy as np
from scipy.io import wavfile

from sbm_jax.errors import SbmError

_FULL_SCALE = {np.dtype(np.int16): 2**15, np.dtype(np.int32): 2**31}  # 24 bits are read into the upper bits
_DAMAGED = (
    *(OSError, ValueError, EOFError, OverflowError, MemoryError, TypeError, KeyError, ZeroDivisionError, struct.error),
    *(NameError, wavfile.WavFileWarning),  # without a header, it returns a variable it never set
)
"""What SciPy raises on files that are damaged or not WAV, depending on the damage."""


def read_wav(path: pathlib.Path, rate: int) -> np.ndarray:
    """Read a WAV file of one channel as a waveform, float32 [T].

    PCM of 8, 16, 24 or 32 bits is scaled to [-1, 1); floats are returned unchanged.

    Args:
      path: path of the file.
      rate: expected sampling rate in Hz.

    Raises:
      SbmError: if it cannot be read as a WAV file, is truncated, has no samples, several channels, another rate, or
        values that are not finite.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # about metadata such as texts
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            found, samples = wavfile.read(path)
    except _DAMAGED as error:
        raise SbmError(f"{path} cannot be read as a WAV file: {error}. Write it again as PCM or floats.") from error
    if found != rate:
        raise SbmError(f"{path} has {found} samples per second; expected {rate}. Resample it, or declare its rate.")
    if samples.ndim != 1:
        raise SbmError(f"{path} has {samples.shape[1]} channels; expected one. Mix them, or choose one.")
    if not len(samples):
        raise SbmError(f"{path} has no samples; expected a waveform. Leave it out, or write it again.")
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in _FULL_SCALE:
        return (samples / _FULL_SCALE[samples.dtype]).astype(np.float32)
    if samples.dtype.kind != "f":
        raise SbmError(f"{path} has samples of the type {samples.dtype}; expected PCM of 8 to 32 bits, or floats.")
    if not np.isfinite(samples).all():
        raise SbmError(f"{path} has NaN or infinite values; expected finite values. Fix it.")
    return samples.astype(np.float32)
