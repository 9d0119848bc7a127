"""The classifiers that judge generated data."""

import flax.linen as nn

from sbm_jax.types import Array


class DigitClassifier(nn.Module):
    """Three strided convolutions and two dense layers; the shape of the one the SBM paper evaluates with (A.2).

    The authors' classifier has channels 32, 64, 128 and 512 hidden units. There is no normalisation: it would make the
    verdict depend on the contrast of blurred reconstructions.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 512
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, features: bool = False) -> Array:
        """Map images [B, H, W, C] in [0, 1] to logits [B, num_classes], or to features [B, hidden]."""
        x = x - 0.5
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        if features:
            return x
        return nn.Dense(self.num_classes)(nn.Dropout(self.dropout, deterministic=not train)(x))


class VectorClassifier(nn.Module):
    """One hidden layer, for modalities that are no images."""

    num_classes: int
    hidden: int = 512
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, features: bool = False) -> Array:
        """Map [B, *shape] to logits [B, num_classes], or to features [B, hidden]."""
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        if features:
            return x
        return nn.Dense(self.num_classes)(nn.Dropout(self.dropout, deterministic=not train)(x))
