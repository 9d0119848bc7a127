"""Optimus, a text codec of pretrained networks: BERT encodes a text as a latent, and GPT-2 decodes it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.networks.codecs.tokens import choose, is_real
from sbm_jax.networks.pretrained.bert import Bert, BertConfig, read_bert
from sbm_jax.networks.pretrained.gpt2 import GPT2, GPT2Config, read_gpt2
from sbm_jax.networks.pretrained.weights import Tensors, as_params, read_tensors, without_prefix
from sbm_jax.types import Array, Key, Modality, Params

PARTS = ("encoder", "decoder", "latent")
"""Parts that can be frozen: BERT, GPT-2, and the layers between them and the latent."""

_LATENT = ("linear", "transformer.linear", "transformer.linear_emb")


@checked_dataclass
class OptimusOptions:
    """Configures the networks, their weights and the sampling of texts.

    Attributes:
      bert: the encoder; BERT-base by default.
      gpt2: the decoder; the smallest GPT-2 by default. Its `latent_size` is set to the modality's.
      encoder_weights: a safetensors file of BERT or Optimus with the initial weights; "" for fresh weights.
      decoder_weights: likewise for the decoder, of GPT-2 or Optimus. Latent layers missing from a file are initialised.
      frozen: the `PARTS` that are not trained; the optimiser still allocates memory for them.
      begin: GPT-2's id for the beginning of a text.
      end: GPT-2's id for the end of a text, which may be the same. GPT-2 uses one id for both; Optimus 50258 and 50259.
      temperature: temperature of samples; 0 for the most probable token at each position.
    """

    bert: BertConfig = BertConfig()
    gpt2: GPT2Config = GPT2Config()
    encoder_weights: str = ""
    decoder_weights: str = ""
    frozen: tuple[str, ...] = ()
    begin: int = 50_256
    end: int = 50_256
    temperature: float = 0.0

    def __post_init__(self):
        for part in self.frozen:
            if part not in PARTS:
                raise unknown("part in codec.network.frozen:", part, PARTS)
        for name in ("begin", "end"):
            known = 0 <= getattr(self, name) < self.gpt2.vocabulary_size
            expected = f"an id of gpt2 (vocabulary_size {self.gpt2.vocabulary_size})"
            require(known, f"codec.network.{name}", getattr(self, name), expected)
        require(self.temperature >= 0, "codec.network.temperature", self.temperature, "0 (the most probable) or more")

    def training_settings(self) -> dict[str, Any]:
        """Return what training depends on, except file contents; see `networks.codecs.training_settings`."""
        settings = plain(self)
        for name in ("temperature", "encoder_weights", "decoder_weights"):
            del settings[name]
        return {**settings, "frozen": [part for part in PARTS if part in self.frozen]}


class OptimusEncoder(nn.Module):
    """BERT, with a linear layer from the pooled state to the mean and log variance.

    Attributes:
      config: sizes of BERT.
      latent_size: D_m.
    """

    config: BertConfig
    latent_size: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map the second half of rows, int [B, 2 L], to two arrays [B, D_m]; see `Optimus`."""
        ids = x[:, x.shape[1] // 2 :]
        present = (ids > 0) | (jnp.arange(ids.shape[1]) == 0)[None]  # an empty row attends to its first position
        _, pooled = Bert(self.config, name="bert")(jnp.maximum(ids - 1, 0), present)
        both = nn.Dense(2 * self.latent_size, use_bias=False, name="linear")(pooled)
        mean, log_variance = jnp.split(both, 2, axis=-1)
        return mean, jnp.clip(log_variance, -12.0, 6.0)


@dataclasses.dataclass(frozen=True)
class Optimus:
    """BERT and GPT-2, joined by a latent that GPT-2 receives as a memory position and as an addition to every token.

    A row contains two tokenisations of one text side by side, as created by the format ``"pretrained_text"``: GPT-2's,
    with at most L - 1 ids, which is learned and generated, and BERT's, which is encoded. Ids start from 1 in both,
    because 0 ends and pads a text. In generated rows, the second half is 0, because only a tokenizer on the host can
    fill it.

    p(x | z) is the product of the probabilities of GPT-2's tokens up to the end, each given those before it. The raw
    output of `decode` is the latent itself.

    Attributes:
      modality: the modality to encode.
      options: see `OptimusOptions`.

    Reference: C. Li et al., "Optimus", 2020, 3.2. https://arxiv.org/abs/2004.04092
    """

    Options: ClassVar[type] = OptimusOptions

    modality: Modality
    options: OptimusOptions

    def __post_init__(self):
        modality, options, where = self.modality, self.options, f"modality {self.modality.name!r}:"
        if not modality.vocabulary_size:
            raise SbmError(f"{where} the codec 'optimus' encodes ids. Give the modality the format 'pretrained_text'.")
        twice = modality.shape[0] % 2 == 0 and modality.shape[0] >= 4
        require(twice, f"{where} shape", modality.shape, "(2 L,), twice the maximum number of tokens; L at least 2")
        least = min(options.bert.most_tokens, options.gpt2.most_tokens - 1)
        require(self.length <= least, f"{where} shape", modality.shape, f"at most ({2 * least},), for both networks")
        own = options.gpt2.latent_size
        fits = own in (0, modality.latent_size)
        require(fits, f"{where} codec.network.gpt2.latent_size", own, f"0, or latent_size ({modality.latent_size})")
        most = 1 + max(options.bert.vocabulary_size, options.gpt2.vocabulary_size)
        fits = modality.vocabulary_size <= most
        require(fits, f"{where} vocabulary_size", modality.vocabulary_size, f"at most {most}, for bert and gpt2")

    @property
    def length(self) -> int:
        """L, the length of each half of a row."""
        return self.modality.shape[0] // 2

    @property
    def encoder(self) -> OptimusEncoder:
        """The encoder's module."""
        return OptimusEncoder(self.options.bert, self.modality.latent_size)

    @property
    def decoder(self) -> GPT2:
        """The decoder's module."""
        return GPT2(dataclasses.replace(self.options.gpt2, latent_size=self.modality.latent_size))

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""
        keys = jax.random.split(key)
        x, z = jnp.zeros((1, *self.modality.shape), jnp.int32), jnp.zeros((1, self.modality.latent_size))
        return {
            "encoder": self.encoder.init(keys[0], x)["params"],
            "decoder": self.decoder.init(keys[1], x[:, : self.length], z)["params"],
        }

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return the posterior mean and log variance, [B, D_m] each, of rows, int [B, 2 L]."""
        return self.encoder.apply({"params": self._held(params)["encoder"]}, x)

    def decode(self, params: Params, z: Array) -> Array:
        """Return the latents [B, D_m] unchanged."""
        del params
        return z

    def loss(self, params: Params, key: Key, x: Array, output: Array) -> Array:
        """Return -log p(x | z) [B] of the first half of rows, int [B, 2 L], in nats."""
        del key
        options, ids = self.options, x[:, : self.length]
        tokens = jnp.where(ids > 0, ids - 1, options.end)
        before = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=options.begin)[:, :-1]
        logits = self.decoder.apply({"params": self._held(params)["decoder"]}, before, output)
        log_prob = jax.nn.log_softmax(self._allowed(logits))
        log_prob = jnp.take_along_axis(log_prob, tokens[:, :, None], axis=-1)[:, :, 0]
        with_end = jnp.pad(is_real(ids), ((0, 0), (1, 0)), constant_values=True)[:, :-1]
        return -jnp.sum(jnp.where(with_end, log_prob, 0.0), axis=1)

    def _allowed(self, logits: Array) -> Array:
        """Set the logits [..., V] of tokens that never occur in a text to -inf.

        Some networks have more tokens than their tokenizers, or a separate begin token.
        """
        options, tokens = self.options, jnp.arange(logits.shape[-1])
        known = (tokens < self.modality.vocabulary_size - 1) & (tokens != options.begin)
        known |= tokens == options.end
        return jnp.where(known.reshape(*(1,) * (logits.ndim - 1), -1), logits, -jnp.inf)

    def sample(self, params: Params, key: Key, output: Array) -> Array:
        """Sample rows, int32 [B, 2 L], token by token, padded with 0; -1 where the latent is not finite."""
        options, batch, decoder = self.options, len(output), self.decoder
        apply = {"params": params["decoder"]}
        cache = decoder.apply(apply, batch, self.length, output, method="start")

        def step(state: tuple, position: Array) -> tuple[tuple, Array]:
            before, ended, cache = state
            logits, cache = decoder.apply(apply, before[:, None], cache, method="extend")
            logits = self._allowed(logits[:, 0])
            chosen = choose(jax.random.fold_in(key, position), logits, options.temperature)
            ended |= (chosen == options.end) | (position == self.length - 1)  # the last position must be an end
            return (chosen, ended, cache), jnp.where(ended, 0, chosen + 1)

        start = (jnp.full(batch, options.begin, jnp.int32), jnp.zeros(batch, bool), cache)
        _, ids = jax.lax.scan(step, start, jnp.arange(self.length))
        rows = jnp.pad(ids.T, ((0, 0), (0, self.length)))
        return jnp.where(jnp.isfinite(output).all(axis=1)[:, None], rows, -1)

    # MARK: Weights

    @property
    def files(self) -> dict[str, str]:
        """The files of initial weights, {option: path}."""
        options = {name: getattr(self.options, name) for name in ("encoder_weights", "decoder_weights")}
        return {f"codec.network.{name}": path for name, path in options.items() if path}

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts that are not trained."""
        return self.options.frozen

    @property
    def is_frozen(self) -> bool:
        """Whether all parts are frozen, in which case the files must contain all weights."""
        return set(self.options.frozen) == set(PARTS)

    def read(self) -> Params:
        """Read the parameters that the files contain.

        Raises:
          SbmError: if a file cannot be read, or a tensor is missing or has another shape.
        """
        found = {}
        for option, path in self.files.items():
            tensors = read_tensors(path, option)
            read = self._read_encoder if option.endswith("encoder_weights") else self._read_decoder
            found[option.rpartition(".")[2].removesuffix("_weights")] = read(tensors, option)
        return found

    def _read_encoder(self, tensors: Tensors, option: str) -> Params:
        if any(name.startswith("encoder.embeddings.") for name in tensors):  # an Optimus file
            tensors = _within(tensors, "encoder.")
        found = {"bert": read_bert(self.options.bert, tensors, option)}
        if "linear.weight" in tensors:
            width = jax.ShapeDtypeStruct((1, self.options.bert.width), jnp.float32)
            linear = nn.Dense(2 * self.modality.latent_size, use_bias=False)
            found["linear"] = as_params(linear, (width,), {"weight": tensors["linear.weight"]}, option)
        return found

    def _read_decoder(self, tensors: Tensors, option: str) -> Params:
        if any(name.startswith("decoder.") for name in tensors):  # an Optimus file
            tensors = _within(tensors, "decoder.")
        tensors = without_prefix(tensors, "transformer.")
        with_latent = {"linear.weight", "linear_emb.weight"} <= tensors.keys()
        return read_gpt2(self.decoder.config if with_latent else self.options.gpt2, tensors, option)

    def _held(self, params: Params) -> Params:
        """Return the parameters with gradients stopped at frozen parts."""

        def hold(path: tuple[str, ...], leaf: Array) -> Array:
            part = "latent" if path[1] in _LATENT else path[0]
            return jax.lax.stop_gradient(leaf) if part in self.options.frozen else leaf

        return unflatten_dict({path: hold(path, leaf) for path, leaf in flatten_dict(params).items()})


def _within(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the tensors whose names start with a prefix, and strip it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
