"""Encoders of all modalities into one embedding space, trained contrastively."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.config import plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError
from sbm_jax.losses.info_nce import has_pair, info_nce_terms, inverse_temperature
from sbm_jax.losses.masked import masked_mean
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, HasEncoder, make_codec
from sbm_jax.networks.contrastive import ContrastiveEncoder
from sbm_jax.networks.per_modality import PerModality
from sbm_jax.types import Array, Data, Key, Metrics, Modality, Params, Stage, TrainingConfig


@dataclasses.dataclass(frozen=True)
class ContrastiveEncoders:
    """The encoders, their loss and their embeddings.

    Attributes:
      modalities: M modalities, in the order of the embeddings.
      network: sizes of the encoders, unless a codec sets its own.
      embedding_size: E.
      dropout: dropout rate in the projection heads.
      temperature: initial value of the learned temperature.
      batched: see `PerModality`.
    """

    modalities: tuple[Modality, ...]
    network: AutoencoderNetworkConfig
    embedding_size: int
    dropout: float
    temperature: float
    batched: bool

    @property
    def per_modality(self) -> PerModality:
        """The modules of all modalities, with embeddings in place of latents."""
        return PerModality(tuple(m.with_latents(self.embedding_size) for m in self.modalities), self.batched)

    def _encoder(self, modality: Modality) -> ContrastiveEncoder:
        return ContrastiveEncoder(modality, self.network, self.dropout)

    def check(self, who: str) -> None:
        """Raise `SbmError`, with a message that starts with `who`, if a codec has no encoder module."""
        for modality in self.modalities:
            if not isinstance(make_codec(modality, self.network), HasEncoder):
                raise SbmError(
                    f"{who} needs the encoder of every codec as a module, but {modality.codec.name!r}, of modality "
                    f"{modality.name!r}, provides none (networks.codecs.HasEncoder). Choose another codec."
                )

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""

        def init_one(modality: Modality, key: Key) -> Params:
            return self._encoder(modality).init(key, jnp.zeros((1, *modality.shape), modality.dtype))["params"]

        log_scale = -jnp.log(jnp.float32(self.temperature))
        return {"encoders": self.per_modality.init(key, init_one), "log_scale": log_scale}

    def stage(
        self,
        name: str,
        settings: Mapping[str, Any],
        training: TrainingConfig,
        rows: Callable[[str], Any],
    ) -> Stage:
        """Return the stage that trains the encoders.

        Args:
          name: name of the stage.
          settings: further settings that the stage depends on, in addition to the modalities; see `types.Stage`.
          training: see `types.TrainingConfig`.
          rows: returns the rows of `"train"` or `"validation"`.
        """
        return Stage(
            name=name,
            settings={"modalities": plain(self.per_modality.modalities), **settings},
            init=lambda key, upstream: self.init(key),
            loss=self.loss,
            rows=lambda upstream: rows("train"),
            validation_rows=lambda upstream: rows("validation"),
            validation_loss=functools.partial(self.loss, train=False),
            training=training,
        )

    def loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Any], train: bool = True
    ) -> tuple[Array, Metrics]:
        """Return `info_nce_terms` averaged over the rows of a batch that have a pair; see `types.Stage`."""
        del upstream
        present, dropout_key = batch.get("present"), key if train and self.dropout else None
        embeddings = self.embeddings(params, in_units(batch["data"]), dropout_key)
        loss, found = info_nce_terms(embeddings, params["log_scale"], present=present)
        paired = has_pair(present)
        metrics = {"found": masked_mean(found, paired), "inverse_temperature": inverse_temperature(params["log_scale"])}
        return masked_mean(loss, paired), metrics

    def embeddings(self, params: Params, data: Data, dropout_key: Key | None = None) -> Array:
        """Return unit vectors [B, M, E] of float data; 0 for modalities that are not in `data`."""
        train = dropout_key is not None
        inputs = {name: (x, None) for name, x in data.items()}
        if train:  # one key per encoder; otherwise, equal encoders would drop the same units
            keys = jax.random.split(dropout_key, len(data))
            inputs = {name: (x, key) for (name, x), key in zip(data.items(), keys, strict=True)}

        def encode(modality: Modality, weights: Params, given: tuple[Array, Key | None]) -> Array:
            x, key = given
            rngs = None if key is None else {"dropout": key}
            return self._encoder(modality).apply({"params": weights}, x, train=train, rngs=rngs)

        embeddings = self.per_modality.apply(params["encoders"], inputs, encode)
        nothing = jnp.zeros((len(next(iter(data.values()))), self.embedding_size))
        return jnp.stack([embeddings.get(modality.name, nothing) for modality in self.modalities], axis=1)
