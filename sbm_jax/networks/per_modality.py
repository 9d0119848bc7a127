"""One module per modality, with the parameters of equal modalities stacked."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.errors import unknown
from sbm_jax.types import Key, Modality, Params


@dataclasses.dataclass(frozen=True)
class PerModality:
    """Initialises and applies one module per modality.

    The parameters of modalities that differ only in their names form a group: they are stacked on a leading axis and
    stored as one entry of the parameter dictionary, under the name of the first modality.

    Attributes:
      modalities: all modalities.
      batched: whether to compute a group by one `vmap` over the stack (accelerators), or one modality at a time
        (CPU, where a convolution under `vmap` is about nine times slower). Results and parameters are the same.
    """

    modalities: tuple[Modality, ...]
    batched: bool

    @property
    def groups(self) -> dict[str, list[Modality]]:
        """The modalities by parameter group, in order."""
        groups: list[list[Modality]] = []
        for modality in self.modalities:
            own = next((g for g in groups if dataclasses.replace(g[0], name=modality.name) == modality), None)
            if own is None:
                groups.append(own := [])
            own.append(modality)
        return {group[0].name: group for group in groups}

    def init(self, key: Key, init_fn: Callable[[Modality, Key], Params]) -> Params:
        """Return {group: parameters}, each leaf stacked over the group's modalities."""
        index = {modality.name: i for i, modality in enumerate(self.modalities)}
        return {
            name: jax.vmap(lambda number, m=group[0]: init_fn(m, jax.random.fold_in(key, number)))(
                jnp.array([index[modality.name] for modality in group])
            )
            for name, group in self.groups.items()
        }

    def own(self, params: Params, name: str) -> Params:
        """Return the parameters of one modality.

        Raises:
          SbmError: on an unknown modality.
        """
        for group, modalities in self.groups.items():
            for i, modality in enumerate(modalities):
                if modality.name == name:
                    return jax.tree.map(lambda leaf, i=i: leaf[i], params[group])
        raise unknown("modality:", name, [modality.name for modality in self.modalities])

    def apply(
        self,
        params: Params,
        inputs: Mapping[str, Any],
        apply_fn: Callable[[Modality, Params, Any], Any],
    ) -> dict[str, Any]:
        """Return {name: apply_fn(modality, its parameters, its input)} for the modalities in `inputs`.

        Inputs are pytrees of arrays, with the same structure for all modalities.
        """
        outputs = {}
        for name, group in self.groups.items():
            chosen = [(i, modality) for i, modality in enumerate(group) if modality.name in inputs]
            weights = params[name]
            if chosen and self.batched:
                rows = jnp.array([i for i, _ in chosen])
                weights = weights if len(chosen) == len(group) else jax.tree.map(lambda w, r=rows: w[r], weights)
                one = jax.vmap(lambda w, x, m=group[0]: apply_fn(m, w, x))
                together = jax.tree.map(lambda *arrays: jnp.stack(arrays), *[inputs[m.name] for _, m in chosen])
                stacked = one(weights, together)
                for row, (_, modality) in enumerate(chosen):
                    outputs[modality.name] = jax.tree.map(lambda a, r=row: a[r], stacked)
            else:
                for i, modality in chosen:
                    own = jax.tree.map(lambda w, i=i: w[i], weights)
                    outputs[modality.name] = apply_fn(modality, own, inputs[modality.name])
        return {m.name: outputs[m.name] for m in self.modalities if m.name in outputs}
