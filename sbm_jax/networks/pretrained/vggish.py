"""VGGish, which extracts features of sound for the Fréchet audio distance.

References: S. Hershey et al., "CNN Architectures for Large-Scale Audio Classification", 2017.
  https://arxiv.org/abs/1609.09430. K. Kilgour et al., "Fréchet Audio Distance", 2019. https://arxiv.org/abs/1812.08466.
  Equivalent to the package torchvggish; `weights.py` describes how to convert its weights.

    curl -LO https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.pretrained.weights import Tensors, as_params
from sbm_jax.types import Array, Params

RATE = 16_000
"""Sample rate of the network's input, in Hz."""

FRAMES, BANDS = 96, 64
"""Frames of 10 ms and mel bands per patch."""

_WINDOW, _HOP, _FFT = 400, 160, 512
_LOWEST, _HIGHEST, _OFFSET = 125.0, 7500.0, 0.01


@checked_dataclass
class VggishConfig:
    """Sizes of VGGish; the published network's by default.

    Attributes:
      widths: channels of the four levels, the last two of which have two convolutions each.
      hidden: units of the two dense layers before the last.
      embedding_size: size of the features.
      rectified: whether to apply ReLU to the last layer too, as in training; the Fréchet audio distance does not.
    """

    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    hidden: int = 4096
    embedding_size: int = 128
    rectified: bool = False

    def __post_init__(self):
        four = len(self.widths) == 4 and min(self.widths) >= 1
        require(four, "vggish: widths", self.widths, "four positive numbers")
        for name in ("hidden", "embedding_size"):
            require(getattr(self, name) >= 1, f"vggish: {name}", getattr(self, name), "at least 1")


class Vggish(nn.Module):
    """The network.

    Attributes:
      config: its sizes.
    """

    config: VggishConfig = VggishConfig()

    @nn.compact
    def __call__(self, patches: Array) -> Array:
        """Map log mel patches [B, 96, 64], computed as in `mel_patches`, to features [B, embedding_size]."""
        config = self.config
        x, layer = patches[..., None], 0
        for width, repeats in zip(config.widths, (1, 1, 2, 2), strict=True):
            for _ in range(repeats):
                x = nn.relu(nn.Conv(width, (3, 3), name=f"features.{layer}")(x))
                layer += 2
            x = nn.max_pool(x, (2, 2), (2, 2))
            layer += 1
        x = x.reshape(len(x), -1)
        for number, width in enumerate((config.hidden, config.hidden, config.embedding_size)):
            x = nn.Dense(width, name=f"embeddings.{2 * number}")(x)
            x = nn.relu(x) if number < 2 or config.rectified else x
        return x


def read_vggish(config: VggishConfig, tensors: Tensors, option: str) -> Params:
    """Convert tensors to the parameters of `Vggish`.

    Raises:
      SbmError: see `as_params`.
    """
    patches = jax.ShapeDtypeStruct((1, FRAMES, BANDS), jnp.float32)
    return as_params(Vggish(config), (patches,), tensors, option)


# MARK: Front end


def mel_patches(sound: Array) -> Array:
    """Compute log mel patches [B, P, 96, 64] of waveforms [B, N] in [-1, 1] at 16 kHz.

    Uses frames of 25 ms every 10 ms, periodic Hann windows and magnitude spectra, and adjacent patches of 0.96 s. The
    remainder after the last whole patch is dropped.

    Raises:
      SbmError: if the waveforms have another shape, or are shorter than one patch.
    """
    require(sound.ndim == 2, "vggish: the shape of sounds", sound.shape, "[B, N]")
    number = (sound.shape[1] - _WINDOW) // _HOP + 1
    if number < FRAMES:
        needed = _WINDOW + (FRAMES - 1) * _HOP
        raise SbmError(
            f"VGGish needs at least {needed} samples, but the sounds have {sound.shape[1]}; give longer ones."
        )
    index = np.arange(number)[:, None] * _HOP + np.arange(_WINDOW)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    spectrum = jnp.abs(jnp.fft.rfft(sound[:, index] * window.astype(np.float32)[None, None], _FFT))
    mel = jnp.log(spectrum @ _mel_weights() + _OFFSET)
    whole = number // FRAMES
    return mel[:, : whole * FRAMES].reshape(len(sound), whole, FRAMES, BANDS)


def _mel_weights() -> np.ndarray:
    """Return the weights [257, 64] of filters that are triangular in mel, not in hertz; the DC bin has weight 0."""

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    bins = mel(np.linspace(0.0, RATE / 2, _FFT // 2 + 1))
    edges = np.linspace(mel(_LOWEST), mel(_HIGHEST), BANDS + 2)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights.astype(np.float32)
