"""BERT's encoder.

Reference: J. Devlin et al., "BERT", 2018. https://arxiv.org/abs/1810.04805. Equivalent to `transformers.BertModel`.

    hf download google-bert/bert-base-cased model.safetensors tokenizer.json
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.pretrained.weights import Tensors, as_params, check_length, without_prefix
from sbm_jax.types import Array, Params


@checked_dataclass
class BertConfig:
    """Sizes of BERT; BERT-base's by default.

    Attributes:
      vocabulary_size: size of the tokenizer's vocabulary.
      width: size of a token.
      depth: number of layers.
      heads: attention heads, a divisor of `width`.
      hidden: hidden units of the MLPs.
      most_tokens: maximum number of tokens.
    """

    vocabulary_size: int = 28_996
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    most_tokens: int = 512

    def __post_init__(self):
        for name in ("vocabulary_size", "width", "depth", "heads", "hidden", "most_tokens"):
            require(getattr(self, name) >= 1, f"bert: {name}", getattr(self, name), "at least 1")
        require(self.width % self.heads == 0, "bert: heads", self.heads, f"a divisor of width ({self.width})")


class Bert(nn.Module):
    """The encoder with its pooler.

    Attributes:
      config: its sizes.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, ids: Array, present: Array | None = None) -> tuple[Array, Array]:
        """Return the last hidden states [B, T, width], and the pooled first one [B, width].

        Args:
          ids: int [B, T].
          present: bool [B, T], False for padding; None for no padding.

        Raises:
          SbmError: on more tokens than `most_tokens`.
        """
        config = self.config
        check_length(ids.shape[1], config.most_tokens, "bert")
        x = self._embedding(config.vocabulary_size, "word")(ids)
        x = x + self._embedding(config.most_tokens, "position")(jnp.arange(ids.shape[1]))[None]
        x = x + self._embedding(2, "token_type")(jnp.zeros_like(ids))
        x = _norm("embeddings.LayerNorm")(x)
        mask = None if present is None else present[:, None, None, :]
        for number in range(config.depth):
            x = _Layer(config, name=f"encoder.layer.{number}")(x, mask)
        return x, jnp.tanh(nn.Dense(config.width, name="pooler.dense")(x[:, 0]))

    def _embedding(self, number: int, name: str) -> nn.Embed:
        return nn.Embed(number, self.config.width, name=f"embeddings.{name}_embeddings")


class _Layer(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        config = self.config
        heads = (*x.shape[:2], config.heads, config.width // config.heads)
        query, key, value = (
            nn.Dense(config.width, name=f"attention.self.{part}")(x).reshape(heads)
            for part in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(x.shape)
        attended = nn.Dense(config.width, name="attention.output.dense")(attended)
        x = _norm("attention.output.LayerNorm")(x + attended)
        hidden = nn.gelu(nn.Dense(config.hidden, name="intermediate.dense")(x), approximate=False)
        return _norm("output.LayerNorm")(x + nn.Dense(config.width, name="output.dense")(hidden))


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(1e-12, name=name)


def read_bert(config: BertConfig, tensors: Tensors, option: str) -> Params:
    """Convert tensors to the parameters of `Bert`; they may be named as in `BertModel` or in a model with a head.

    Norms may also have the names used in the oldest files.

    Raises:
      SbmError: see `as_params`.
    """
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    older = {"gamma": "weight", "beta": "bias"}
    named = {}
    for name, tensor in without_prefix(tensors, "bert.").items():
        module, _, last = name.rpartition(".")
        named[f"{module}.{older.get(last, last)}"] = tensor
    return as_params(Bert(config), (ids,), named, option)
