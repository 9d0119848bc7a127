"""Classifiers for evaluating generated data."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.networks.moments import TimeBlock
from sbm_jax.types import Array


class DigitClassifier(nn.Module):
    """Classifies images by three strided convolutions and two dense layers, as in the SBM paper's evaluation (A.2).

    The authors' classifier has 32, 64 and 128 channels and 512 hidden units. There is no normalisation, which would
    make predictions depend on the contrast of blurred reconstructions.
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


class SeriesClassifier(nn.Module):
    """Classifies series by convolutions in time, followed by attention pooling over moments for each question.

    Frames that are images first pass through strided convolutions.

    Attributes:
      num_classes: number of classes of each question.
      widths: channels of the convolutions over images; a moment has twice as many features as the last of them.
      dropout: rate inside the convolutions in time, and on the pooled features.
    """

    num_classes: tuple[int, ...]
    widths: tuple[int, ...] = (32, 64, 128)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, features: bool = False) -> Array:
        """Map [B, T, ...] in [0, 1] to logits of all questions [B, sum(num_classes)], or features [B, 2 widths[-1]]."""
        h, width = self._frames(x - 0.5), 2 * self.widths[-1]
        for block in range(4):
            h = TimeBlock(width, 2, dropout=self.dropout)(h, train=train)
            if block == 1 and h.shape[1] > 1:
                h = nn.avg_pool(h, (2,), (2,))
        h = nn.LayerNorm()(h)
        if features:
            return h.mean(axis=1)
        places = self.param("places", nn.initializers.normal(0.1), (1, h.shape[1], width))
        looks = jax.nn.softmax(2.0 * nn.Dense(len(self.num_classes))(h + places), axis=1)
        seen = jnp.einsum("btq,btw->bqw", looks, h)
        seen = nn.Dropout(self.dropout, deterministic=not train)(seen)
        answers = [nn.Dense(n)(nn.silu(nn.Dense(width)(seen[:, q]))) for q, n in enumerate(self.num_classes)]
        return jnp.concatenate(answers, axis=-1)

    def _frames(self, x: Array) -> Array:
        """Return the features of each frame, [B, T, 2 * widths[-1]]."""
        batch, length = x.shape[:2]
        if x.ndim == 5:
            x = x.reshape(batch * length, *x.shape[2:])
            for width in self.widths:
                x = nn.relu(nn.Conv(width, (3, 3), (2, 2))(x))
        return nn.Dense(2 * self.widths[-1])(x.reshape(batch, length, -1))


class VectorClassifier(nn.Module):
    """Classifies modalities other than images with one hidden layer."""

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
    """Classifies sequences of ids by embeddings, two convolutions, and max and mean pooling over the sequence.

    Convolutions see the order of ids within a few positions. Max pooling serves classes that a single word reveals,
    mean pooling those that many words reveal together.

    Attributes:
      num_classes: number of classes.
      vocabulary_size: number of ids; 0 ends and pads a sequence.
      width: size of the embeddings.
      hidden: units of the hidden layer.
      dropout: rate on the pooled features.
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
