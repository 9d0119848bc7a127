"""A trained work directory as an object: load it, generate any modality from any others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from sbm_jax import experiment
from sbm_jax.data import check_data
from sbm_jax.data.pipeline import as_float
from sbm_jax.errors import SbmError, unknown
from sbm_jax.runner import make_generate
from sbm_jax.sampling import SamplerOptions
from sbm_jax.training.loop import load_product
from sbm_jax.types import Generated, Modality, Params, System


class TrainedSystem:
    """A system with its trained parameters.

    Attributes:
      system: the pure functions.
      products: the parameters, by stage name.
      options: the sampler's options where `generate` is given none.
    """

    def __init__(self, system: System, products: Mapping[str, Params], options: SamplerOptions):
        """Bind a system to parameters."""
        self.system, self.products, self.options = system, products, options
        self._compiled = {}

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities, in the order of observed masks."""
        return self.system.modalities

    def generate(
        self,
        data: Mapping[str, np.ndarray],
        targets: Sequence[str] | None = None,
        *,
        num_samples: int = 1,
        batch_size: int | None = None,
        seed: int = 0,
        strength: float | np.ndarray | None = None,
        options: SamplerOptions | None = None,
    ) -> Generated:
        """Generate modalities from the given ones.

        Args:
          data: {name: [B, *shape]}, the observed modalities: uint8 images, or floats in the units of training. Empty
            for unconditional samples.
          targets: what to generate; None for everything that is not in `data`. Modalities that are neither given nor
            asked for are sampled and left out of the result.
          num_samples: S, samples per row.
          batch_size: B where `data` is empty.
          seed: equal seeds give equal samples.
          strength: of the guidance, a number or one for each row [B]; None for that of the config.
          options: overrides the options that the system was trained with.

        Returns:
          `data` {name: [B, S, *shape]} of the targets and their `latents`, on the host.

        Raises:
          SbmError: on an unknown modality, data of the wrong shape, not finite or out of range.
        """
        names = [modality.name for modality in self.modalities]
        for name in [*data, *(targets or ())]:
            if name not in names:
                raise unknown("modality", name, names)
        if not data and batch_size is None:
            raise SbmError("nothing is observed: give batch_size, the number of rows to generate.")
        arrays = as_float({name: check_data(name, array, self._modality(name)) for name, array in data.items()})
        sizes = {len(array) for array in arrays.values()} | ({batch_size} if batch_size else set())
        if len(sizes) != 1:
            raise SbmError(f"all modalities (and batch_size) must have the same number of rows, not {sorted(sizes)}.")
        observed = np.tile([name in data for name in names], (sizes.pop(), 1))
        generate = self._compile(options or self.options)
        result = jax.device_get(generate(jax.random.key(seed), arrays, observed, num_samples, strength))
        wanted = [name for name in names if (name in targets if targets is not None else name not in data)]
        return Generated(
            data={name: result.data[name] for name in wanted},
            latents=result.latents and {name: result.latents[name] for name in wanted},
            info=result.info,
        )

    def _modality(self, name: str) -> Modality:
        return next(modality for modality in self.modalities if modality.name == name)

    def _compile(self, options: SamplerOptions):
        if options not in self._compiled:
            self._compiled[options] = make_generate(self.system, self.products, options)
        return self._compiled[options]


def load(workdir: str | Path, system: str | None = None) -> TrainedSystem:
    """Load a work directory whose training is complete.

    Args:
      workdir: as given to `--workdir`.
      system: which of its systems; None for the first.

    Raises:
      SbmError: if there is no finished run, or no such system in it.
    """
    workdir = Path(workdir)
    config = experiment.read_config(workdir)
    name = system or config.systems[0]
    if name not in config.systems:
        raise unknown(f"system of {workdir}:", name, config.systems)
    made = experiment.SYSTEMS[name](config)
    products = {stage: load_product(stage, workdir) for stage in made.stage_names}
    return TrainedSystem(made, products, config.sampler)
