"""Accuracy of the classifiers on real data, an upper limit of the coherence that they can confirm."""

import collections

from sbm_jax.evaluation.batches import batches, in_units
from sbm_jax.evaluation.estimates import BATCHES, estimate
from sbm_jax.evaluation.metrics.base import Evaluation, Metric, prefixed
from sbm_jax.types import LABEL


class ClassifierAccuracy(Metric):
    """The accuracy of each question's classifier on the examples, over all modalities and for each."""

    def result(self) -> Evaluation:
        """Return means over the examples."""
        scene, groups = self.scene, collections.defaultdict(list)
        for indices, count in batches(len(scene.complete), scene.batch_size) if scene.judged else ():
            batch = {name: in_units(scene.complete.data[name][indices]) for name in scene.modalities}
            for question in scene.judged:
                right = scene.classify(question, batch) == scene.complete.labels[question][indices][:, None]
                name = prefixed("classifier", question, "accuracy")
                groups[name].append(right[:count].reshape(-1))
                for m, modality in enumerate(scene.modalities):
                    groups[f"{name}/{modality}"].append(right[:count, m])
        missing = {
            prefixed("classifier", question, "accuracy"): "there is no classifier, or the data have no labels"
            for question in scene.tools.classifiers or [LABEL]
            if question not in scene.judged
        }
        return Evaluation({name: estimate(parts, BATCHES) for name, parts in groups.items()}, missing, {})
