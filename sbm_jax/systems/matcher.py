"""The matcher: encoders of all modalities into one embedding space, to score how well the modalities of a row match.

It is trained separately, on training rows, and shares no parameters with any system, so it judges all systems alike.
The cosine of two of its embeddings is the analogue of the CLIP score; scores of different matchers are not comparable.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sbm_jax import parallel
from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.contrastive_encoders import ContrastiveEncoders
from sbm_jax.types import Array, CodecConfig, Data, Dataset, Modality, Params, Stage, TrainingConfig


@checked_dataclass
class MatcherConfig:
    """The encoders and their training.

    Attributes:
      network: sizes of the encoders, unless a codec sets its own.
      embedding_size: E.
      dropout: dropout rate in the projection heads.
      temperature: initial value of the learned temperature.
      training: see `types.TrainingConfig`.
    """

    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    embedding_size: int = 64
    dropout: float = 0.1
    temperature: float = 0.07
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self):
        require(self.embedding_size >= 2, "matcher.embedding_size", self.embedding_size, "2 or more")
        require(self.temperature > 0, "matcher.temperature", self.temperature, "a positive number")
        require(0 <= self.dropout < 1, "matcher.dropout", self.dropout, "0 to less than 1")
        batch = self.training.batch_size
        require(
            batch >= 2, "matcher.training.batch_size", batch, "2 or more: the other rows of a batch are the negatives"
        )


@dataclasses.dataclass(frozen=True)
class Matcher:
    """The training stage and the embeddings of the matcher.

    Attributes:
      modalities: modalities of the data.
      config: see `MatcherConfig`.
      seed: the run's seed.

    Raises:
      SbmError: if there are fewer than two modalities, or a codec has no encoder module.
    """

    modalities: tuple[Modality, ...]
    config: MatcherConfig
    seed: int = 0

    stage_name = "matcher"

    def __post_init__(self):
        if len(self.modalities) < 2:
            raise SbmError("a matcher (config.matcher) needs two modalities or more. Leave it out.")
        self.encoders.check("a matcher (config.matcher)")

    @property
    def encoders(self) -> ContrastiveEncoders:
        """The encoders, which do not depend on the codecs' training options."""
        config = self.config
        modalities = tuple(
            dataclasses.replace(m, codec=CodecConfig(m.codec.name, m.codec.network), num_tokens=1)
            for m in self.modalities
        )
        sizes = config.network, config.embedding_size, config.dropout, config.temperature
        return ContrastiveEncoders(modalities, *sizes, batched=False)

    def stage(self, dataset: Dataset) -> Stage:
        """Return the training stage."""
        names = [modality.name for modality in self.modalities]
        settings = {"seed": self.seed, "data": dataset.settings, **plain(self.config)}
        return self.encoders.stage(
            self.stage_name, settings, self.config.training, lambda split: getattr(dataset, split).rows(names)
        )

    def embed_fn(self, params: Params) -> Callable[[Data], dict[str, np.ndarray]]:
        """Return the compiled `{modality: float [B, *shape]} -> {modality: unit vectors [B, E]}`."""

        @parallel.over_rows
        def embed(params: Params, data: Data) -> dict[str, Array]:
            vectors = self.encoders.embeddings(params, data)
            return {m.name: vectors[:, place] for place, m in enumerate(self.modalities) if m.name in data}

        return lambda data: {name: np.asarray(values) for name, values in embed(params, data).items()}
