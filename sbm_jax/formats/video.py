"""Videos, with their frame rate."""

import math

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.formats.array import ArrayFormat
from sbm_jax.formats.base import ArrayOptions
from sbm_jax.types import Modality


@checked_dataclass
class VideoOptions(ArrayOptions):
    """The layout of users' rows, and their frame rate.

    Attributes:
      rate: frames per second.
    """

    rate: float = 25.0

    def __post_init__(self):
        require(math.isfinite(self.rate) and self.rate > 0, "format.options.rate", self.rate, "more than 0")


class Video(ArrayFormat):
    """Videos [N, T, H, W, C] of grey or RGB frames, uint8 or floats in [0, 1], without conversion."""

    Options = VideoOptions

    def __init__(self, modality: Modality, options: VideoOptions):
        """Check the shape and bounds of the modality."""
        super().__init__(modality, options)
        where, shape = f"modality {modality.name!r}:", modality.shape
        frames = len(shape) == 4 and shape[-1] in (1, 3)
        require(frames, f"{where} shape", shape, "(frames, height, width, 1 or 3)")
        require(modality.bounds == (0.0, 1.0), f"{where} bounds", modality.bounds, "(0, 1), the range of pixels")
