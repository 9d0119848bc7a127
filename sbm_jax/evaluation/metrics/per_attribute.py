"""F1 and balanced accuracy of each generated attribute."""

from collections.abc import Sequence

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.evaluation.batches import in_units
from sbm_jax.evaluation.estimates import REPEATS, Estimate
from sbm_jax.evaluation.metrics.binary import Binary, BinaryOptions
from sbm_jax.evaluation.metrics.f1 import f1
from sbm_jax.types import Split


@checked_dataclass
class PerAttributeOptions(BinaryOptions):
    """The attributes to generate, the given modalities, and the attributes' names.

    Attributes:
      names: names of the attributes in order, used as suffixes of metric names; () for 0, 1, ...
    """

    names: tuple[str, ...] = ()

    def __post_init__(self):
        field = "config.evaluation.metrics.per_attribute.names"
        for name in self.names:
            require(bool(name) and "/" not in name, field, name, "non-empty names without '/'")
        require(len({*self.names}) == len(self.names), field, self.names, "distinct names")


class PerAttribute(Binary):
    """F1, balanced accuracy and base rate of each binary attribute over all rows, and their macro averages.

    F1 is scikit-learn's `f1_score(average=None, zero_division=0)`: 0 for an attribute without true or generated
    positives. Balanced accuracy is the mean recall of both classes, scikit-learn's `balanced_accuracy_score`; for an
    attribute that all rows have, or none, it is the recall of the only class. Both are averaged over repeats. The base
    rate is the share of rows that have the attribute.
    """

    Options = PerAttributeOptions
    name = "per_attribute"
    most_between = 0.0

    @classmethod
    def check_data(cls, options: PerAttributeOptions, test: Split) -> None:
        """Raise `SbmError` for data that are not vectors of attributes, or a wrong number of names."""
        super().check_data(options, test)
        where = "config.evaluation.metrics.per_attribute"
        shape = test.read([options.modality], np.arange(1))[options.modality].shape[1:]
        if len(shape) != 1:
            raise SbmError(
                f"{where}.modality is {options.modality!r}, whose rows have the shape {list(shape)}; expected vectors "
                "of attributes. Name another modality; masks are judged by 'iou' and 'f1'."
            )
        if len(options.names) not in (0, shape[0]):
            raise SbmError(
                f"{where}.names has {len(options.names)} names, but {options.modality!r} has {shape[0]} attributes. "
                "Name each in order, or none."
            )

    def score(self, true: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return true and generated attributes, [R, A, 2]."""
        return np.stack([true, found], axis=-1)

    def estimates(self, label: str, groups: Sequence[np.ndarray]) -> dict[str, Estimate]:
        """Return the measures of each attribute, and their means over attributes."""
        pairs = [np.moveaxis(group > 0, -1, 0) for group in groups if len(group)]
        count = sum(len(true) for true, _ in pairs)
        target = label.rpartition("/")[2]
        data = in_units(self.scene.examples.data[target][self.complete[target]]) > self.options.threshold
        names = self.options.names or tuple(map(str, range(data.shape[1])))
        measured = {
            "f1": (np.stack([f1(true.T, found.T) for true, found in pairs]), count),
            "balanced_accuracy": (np.stack([balanced_accuracy(true, found) for true, found in pairs]), count),
            "base_rate": (data.mean(axis=0)[None], len(data)),
        }
        estimates = {}
        for measure, (values, n) in measured.items():
            mean = f"{self.name}/{measure}/{label}"
            estimates[mean] = _over_repeats(values.mean(axis=1), n)
            columns = zip(names, values.T, strict=True)
            estimates |= {f"{mean}/{name}": _over_repeats(column, n) for name, column in columns}
        return estimates


def balanced_accuracy(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the mean recall of both classes for each attribute, [A], of bool [N, A]; absent classes are ignored."""
    classes = [(true.sum(axis=0), (true & found).sum(axis=0)), ((~true).sum(axis=0), (~true & ~found).sum(axis=0))]
    recalls = sum(right / np.maximum(number, 1) for number, right in classes)
    return recalls / sum((number > 0).astype(int) for number, _ in classes)


def _over_repeats(values: np.ndarray, n: int) -> Estimate:
    """Return the mean of the repeats' values, computed from `n` samples in total."""
    if len(values) == 1:
        return Estimate(float(values[0]), None, n)
    return Estimate(float(values.mean()), float(values.std(ddof=1)), n, REPEATS)
