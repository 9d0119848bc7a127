"""Shared types: array aliases, modalities, sampling contexts, training stages and data sets.

Shape letters: B rows, M modalities, N tokens (or examples), D the largest token size, S samples per row.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.tokens import Owner, by_token

# MARK: Array aliases

Array = jax.Array
Key = jax.Array  # a typed key, from `jax.random.key`
Params = Any  # a pytree of arrays
Data = Mapping[str, Array | np.ndarray]  # {modality: [B, *shape]}
Metrics = dict[str, Array]  # scalars

# MARK: Modalities


def _with_tuples(value: Any) -> Any:
    """Replace every list in nested values by a tuple."""
    if isinstance(value, Mapping):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value


@checked_dataclass
class CodecConfig:
    """Configures how a modality is encoded and decoded; a plain string is taken as the `name`.

    Omitted options default to the fields of the same name in `config.autoencoder`, which apply to all modalities. All
    but `name` and `network` apply to stage I, where every codec is trained on its own; multimodal VAEs and contrastive
    encoders use only `name` and `network` and have their own training options.

    Attributes:
      name: a key of `networks.codecs.CODECS`, or ``"package.module:ATTRIBUTE"``.
      network: the codec's own options, such as ``{"widths": (64, 64)}``.
      beta: weight of the KL divergence (VAE).
      rae_beta: weight of ‖z‖² (RAE).
      rae_noise: standard deviation of the noise added to z before decoding (RAE).
      weight: weight of the modality's loss in stage I, where one step trains several codecs.
      training: overrides of the training options, such as
        ``{"num_steps": 2000, "optimizer": {"learning_rate": 1e-3}}``.
      weights: a file of parameters written by `TrainedSystem.save_codec`, which are then frozen; "" for none.
    """

    name: str = "residual_conv"
    network: dict = dataclasses.field(default_factory=dict, hash=False)
    beta: float | None = None
    rae_beta: float | None = None
    rae_noise: float | None = None
    weight: float = 1.0
    training: dict = dataclasses.field(default_factory=dict, hash=False)
    weights: str = ""

    def __post_init__(self):
        for name in ("beta", "rae_beta", "rae_noise"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"codec.{name}", value, "0 or more, or None")
        require(self.weight > 0, "codec.weight", self.weight, "a positive number")
        for name in ("network", "training"):  # so that lists and tuples of the same values compare equal
            object.__setattr__(self, name, _with_tuples(getattr(self, name)))


@checked_dataclass
class FormatConfig:
    """Configures the form in which users supply a modality's data; a plain string is taken as the `name`.

    Attributes:
      name: a key of `formats.FORMATS`, or ``"package.module:CLASS"``.
      options: the format's options, such as ``{"words": ("a", "bird")}``.
    """

    name: str = "array"
    options: dict = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self):
        object.__setattr__(self, "options", _with_tuples(self.options))


@checked_dataclass
class Modality:
    """A named part of a data point, and how to encode it.

    Attributes:
      name: key of this modality's data and latents.
      shape: shape of one example, channels last for images; (L,) for sequences of at most L ids.
      latent_size: D_m, the size of the latent vector.
      codec: the encoder and decoder; see `CodecConfig`.
      likelihood: the decoder's distribution, a key of `distributions.LIKELIHOODS`.
      scale: scale of that distribution (standard deviation, or Laplace scale); None to learn it with
        the decoder by maximum likelihood. Discrete distributions have no scale.
      bounds: range of the data, (low, high); () for the range of the likelihood.
      num_tokens: number of equal tokens into which score networks split the latent vector.
      vocabulary_size: V, for sequences of ids from 0 to V - 1, where 0 is padding; 0 for numeric data. Sequences of ids
        need the ``"categorical"`` likelihood.
      format: the form in which users supply the data; see `FormatConfig`. Networks, training and metrics always see
        arrays [N, *shape].
    """

    name: str
    shape: tuple[int, ...]
    latent_size: int
    codec: CodecConfig = CodecConfig()
    likelihood: str = "gaussian"
    scale: float | None = None
    bounds: tuple[float, ...] = ()
    num_tokens: int = 1
    vocabulary_size: int = 0
    format: FormatConfig = FormatConfig()

    def __post_init__(self):
        where = f"modality {self.name!r}:"
        # The name becomes part of metric names, file names and array names.
        named = re.fullmatch(r"(?!label(\.|$))\w[\w .+-]*", self.name) and not self.name.endswith(".present")
        expected = "letters, digits, spaces and any of _.+-, and neither 'label' nor 'label.…'"
        require(bool(named), "modality: name", self.name, expected)
        require(self.latent_size >= 1, f"{where} latent_size", self.latent_size, "at least 1")
        divides = self.num_tokens >= 1 and self.latent_size % self.num_tokens == 0
        require(divides, f"{where} num_tokens", self.num_tokens, f"a divisor of latent_size ({self.latent_size})")
        require(bool(self.shape) and min(self.shape) >= 1, f"{where} shape", self.shape, "positive sizes")
        require(self.scale is None or self.scale > 0, f"{where} scale", self.scale, "a positive number, or None")
        ordered = not self.bounds or (len(self.bounds) == 2 and self.bounds[0] < self.bounds[1])
        require(ordered, f"{where} bounds", self.bounds, "(low, high), or ()")
        known = self.vocabulary_size == 0 or self.vocabulary_size >= 2
        require(known, f"{where} vocabulary_size", self.vocabulary_size, "0 for numbers, 2 or more for ids")
        if self.vocabulary_size:
            require(len(self.shape) == 1, f"{where} shape", self.shape, "(L,), the length of sequences of ids")
            require(self.likelihood == "categorical", f"{where} likelihood", self.likelihood, "'categorical' for ids")
            require(not self.bounds, f"{where} bounds", self.bounds, "() for ids")

    @property
    def dtype(self) -> type:
        """The data type that networks see: int32 for ids, float32 otherwise."""
        return np.int32 if self.vocabulary_size else np.float32

    def with_latents(self, size: int) -> "Modality":
        """Return the modality with `size` latents in one token, keeping only the codec's name and network."""
        codec = CodecConfig(self.codec.name, self.codec.network)
        return dataclasses.replace(self, latent_size=size, num_tokens=1, codec=codec)


# MARK: Sampling


class Context(flax.struct.PyTreeNode):
    """Everything that stays fixed during one sampling call.

    The arrays sampled are [B, N, ...]: either latents, N tokens of size D, or data such as images [B, H, W, C], where
    a single modality owns all N = H rows of pixels.

    Attributes:
      observed: bool [B, M], True where a modality is given.
      valid: bool [N, ...], False on padding: some of the N tokens [N, D] may be shorter than D.
      present: bool [B, M] or None (all present); no other modality attends to an absent one.
      embedding: float [B, E] or None, an embedding of the observed data.
      row_numbers: int [B] or None (0 to B - 1), the number of each row in the whole batch. A row's noise depends on its
        number, so that a batch can be sampled in chunks.
      owner: the modality of each of the N tokens, static; () for one token each (see `tokens`).
    """

    observed: Array
    valid: Array
    present: Array | None = None
    embedding: Array | None = None
    row_numbers: Array | None = None
    owner: Owner = flax.struct.field(pytree_node=False, default=())

    def spread(self, values: Array) -> Array:
        """Expand values per modality, [B, M], to [B, N, 1, ...], which broadcasts against the sampled arrays."""
        values = by_token(values, self.owner)
        return values.reshape(*values.shape, *(1,) * (self.valid.ndim - 1))

    @property
    def given(self) -> Array:
        """Bool [B, N, ...]: observed entries, without padding."""
        return self.spread(self.observed) & self.valid[None]

    @property
    def free(self) -> Array:
        """Bool [B, N, ...]: entries to sample, neither observed nor padding."""
        return ~self.spread(self.observed) & self.valid[None]


@runtime_checkable
class ScoreFn(Protocol):
    """The score ∇ log p_t(z) of diffused joint latents [B, N, D], or of diffused data."""

    def __call__(self, key: Key, z: Array, t: Array) -> Array:
        """Return the score [B, N, ...], float32, exactly 0 at observed and padded entries.

        Args:
          key: randomness for stochastic guidance; plain networks ignore it.
          z: diffused latents [B, N, ...].
          t: time of each modality [B, M], in [0, 1]; 0 where clean.
        """


@runtime_checkable
class ScoreTransform(Protocol):
    """Guidance: maps a score function to a guided one."""

    def __call__(self, score_fn: ScoreFn, context: Context) -> ScoreFn:
        """Return the guided score function."""


# MARK: Training


@runtime_checkable
class LossFn(Protocol):
    """A training objective."""

    def __call__(self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Any) -> tuple[Array, Metrics]:
        """Return the scalar loss and a dictionary of scalar metrics, all averaged over the rows of the batch."""


@checked_dataclass
class OptimizerConfig:
    """Configures Adam or AdamW with a learning-rate schedule.

    Attributes:
      learning_rate: peak learning rate.
      schedule: after the warm-up, ``"constant"`` or ``"cosine"`` (to zero at the last step).
      warmup_steps: steps of linear warm-up.
      weight_decay: decoupled weight decay of matrices and kernels; 0 for plain Adam.
      clip_norm: largest global gradient norm; 0 for no clipping.
      ema_decay: decay of the exponential moving average of the parameters; 0 for none.
    """

    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self):
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "a positive number")
        for name in ("warmup_steps", "weight_decay", "clip_norm"):
            require(getattr(self, name) >= 0, f"optimizer.{name}", getattr(self, name), "0 or more")
        require(0 <= self.ema_decay < 1, "optimizer.ema_decay", self.ema_decay, "0 (none) to less than 1")


@checked_dataclass
class TrainingConfig:
    """Configures the training of a stage.

    Attributes:
      num_steps: optimiser steps.
      batch_size: rows per step, over all devices.
      optimizer: see `OptimizerConfig`.
      steps_per_dispatch: optimiser steps per compiled call.
      checkpoint_every: steps between checkpoints; 0 for the last step only.
      validate_every: steps between evaluations of the loss on held-out rows; 0 for none.
      validate_rows: number of held-out rows to evaluate, from the first; 0 for all.
      split_parameters: shard large parameters and their optimiser state over the devices, for networks too large for
        one device; each step gathers them as needed.
    """

    num_steps: int = 10_000
    batch_size: int = 128
    optimizer: OptimizerConfig = OptimizerConfig()
    steps_per_dispatch: int = 1
    checkpoint_every: int = 0
    validate_every: int = 0
    validate_rows: int = 0
    split_parameters: bool = False

    def __post_init__(self):
        for name in ("num_steps", "batch_size", "steps_per_dispatch"):
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1")
        for name in ("checkpoint_every", "validate_every"):
            require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 (never) or more")
        require(self.validate_rows >= 0, "training.validate_rows", self.validate_rows, "0 (all) or more")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a system: a training run, or a computation whose product later stages need.

    A stage without `training` is computed: its product is `init(key, upstream)`. Any other stage starts from `init` and
    minimises `loss` on batches of `rows(upstream)`; its product is the trained parameters, or their moving average if
    one is kept.

    Attributes:
      name: unique within a run; also the directory of its checkpoints.
      settings: everything that the product depends on, as plain JSON values; these and the fingerprints of `requires`
        determine the stage's fingerprint.
      init: `(key, upstream) -> params`.
      requires: names of the stages whose products it receives, frozen.
      training: see `TrainingConfig`; None for a computed stage.
      loss: see `LossFn`.
      rows: `upstream -> training data`, a pytree of arrays [N, ...], or `rows.Rows`, which need not fit in memory. A
        batch takes the same rows from every array.
      validation_rows: like `rows`, for held-out data.
      validation_loss: `loss` without dropout, for held-out data; None to use `loss`.
    """

    name: str
    settings: Mapping[str, Any]
    init: Callable[[Key, Mapping[str, Params]], Params]
    requires: tuple[str, ...] = ()
    training: TrainingConfig | None = None
    loss: LossFn | None = None
    rows: Callable[[Mapping[str, Params]], Any] | None = None
    validation_rows: Callable[[Mapping[str, Params]], Any] | None = None
    validation_loss: LossFn | None = None

    @property
    def num_steps(self) -> int:
        """Number of optimiser steps; 0 for a computed stage."""
        return self.training.num_steps if self.training else 0


# MARK: Data

LABEL = "label"
"""Name of the question when each row has a single label."""

NOT_ASKED = "not asked for"
"""Start of the reason given for a metric that is missing because the config does not request it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Rows of a data set in memory; `data.records.RecordSplit` keeps them on disk.

    Attributes:
      data: {modality: [N, *shape]}; uint8 images represent values in [0, 1].
      labels: {question: int32 [N]}, the class index of each row; a single question is called `LABEL`. {} without
        labels.
      present: {modality: bool [N]}, False where a row lacks a modality, whose data may then hold any values in the
        modality's range; None if nothing is missing.
    """

    data: Mapping[str, np.ndarray]
    labels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    present: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def read(self, names: Iterable[str], indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the data {modality: [B, *shape]} of the rows at `indices`, int [B]."""
        return {name: self.data[name][indices] for name in names}

    def take(self, indices: np.ndarray) -> "Split":
        """Return the rows at `indices`, int [B], in memory."""
        labels, present = jax.tree.map(lambda array: array[indices], (self.labels, self.present))
        return Split(self.read(self.data, indices), labels, present)

    def rows(self, names: Sequence[str], **beside: Any) -> Any:
        """Return the rows that a training stage reads.

        Args:
          names: names of the modalities.
          **beside: further pytrees of arrays [N, ...], such as ``label``.

        Returns:
          A dictionary with ``data`` {modality: [N, *shape]}, ``present``, bool [N, M], if anything is missing, and the
          arrays of `beside`; wrapped in `rows.Rows` if the data are on disk.
        """
        return {"data": {name: self.data[name] for name in names}, **self.beside(names, beside)}

    def beside(self, names: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the small arrays that a training stage reads alongside the data, all in memory; see `rows`."""
        return dict(more) if self.present is None else {"present": self.presence(names), **more}

    def presence(self, names: Sequence[str]) -> np.ndarray | None:
        """Return a mask of the named modalities that each row has, bool [N, M]; None if nothing is missing."""
        return None if self.present is None else np.stack([self.present[name] for name in names], axis=1)

    def having(self, names: Sequence[str]) -> np.ndarray:
        """Return a mask of the rows that have all of the named modalities, bool [N]."""
        presence = self.presence(names)
        return np.ones(len(self), bool) if presence is None else np.asarray(presence.all(axis=1))


class Dataset(NamedTuple):
    """The three splits of a data set.

    Attributes:
      num_classes: {question: number of classes}; {} without labels.
      settings: JSON values that determine the content, part of the fingerprint of every stage that reads the data.
    """

    train: Split
    validation: Split
    test: Split
    num_classes: dict[str, int]
    settings: dict[str, Any]
