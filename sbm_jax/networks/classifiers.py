"""The classifiers that judge generated data."""

import flax.linen as nn
import jax.numpy as jnp

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


class VideoClassifier(nn.Module):
    """Strided convolutions of each frame, two strided convolutions in time, and a dense layer that knows the order.

    Attributes:
      widths: channels of the convolutions of frames; features of a frame are twice the last.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 512
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, features: bool = False) -> Array:
        """Map videos [B, T, H, W, C] in [0, 1] to logits [B, num_classes], or to features [B, hidden]."""
        batch, length = x.shape[:2]
        h = x.reshape(batch * length, *x.shape[2:]) - 0.5
        for width in self.widths:
            h = nn.relu(nn.Conv(width, (3, 3), (2, 2))(h))
        h = nn.relu(nn.Dense(2 * self.widths[-1])(h.reshape(batch * length, -1))).reshape(batch, length, -1)
        for _ in range(2):
            h = nn.relu(nn.Conv(2 * self.widths[-1], (5,), (2,))(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h.reshape(batch, -1))
        h = nn.relu(nn.Dense(self.hidden)(h))
        if features:
            return h
        return nn.Dense(self.num_classes)(nn.Dropout(self.dropout, deterministic=not train)(h))


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


class SequenceClassifier(nn.Module):
    """Embeddings, two convolutions over neighbouring ids, and the largest and the mean response of the sequence.

    Convolutions see the order of ids within a few positions. For a class that one word tells, the largest response is
    what counts, for one that many do, the mean.

    Attributes:
      vocabulary_size: number of ids; 0 ends and pads a sequence.
    """

    num_classes: int
    vocabulary_size: int
    width: int = 128
    hidden: int = 512
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, features: bool = False) -> Array:
        """Map ids [B, L] to logits [B, num_classes], or to features [B, hidden]."""
        real = (x > 0)[:, :, None]
        h = nn.Embed(self.vocabulary_size, self.width)(jnp.maximum(x, 0)) * real
        for _ in range(2):
            h = (h + nn.relu(nn.Conv(self.width, (3,))(h))) * real
        mean = h.sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
        largest = h.max(axis=1, initial=0.0, where=real)
        pooled = jnp.concatenate([mean, largest], axis=-1)
        x = nn.relu(nn.Dense(self.hidden)(nn.Dropout(self.dropout, deterministic=not train)(pooled)))
        if features:
            return x
        return nn.Dense(self.num_classes)(nn.Dropout(self.dropout, deterministic=not train)(x))
