"""The figure of the README: real images, and samples of each given the others, with and without a diffusion decoder.

    python -m benchmarks.sample_picture --workdir=runs/quickstart --out=benchmarks/results/quickstart_samples.png

One panel per system of `--systems`, side by side. The first line of a panel is the test row `--row`, framed; in each
line below it, every modality is sampled given all others of that row. Systems that share their latents draw the same
ones.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import sbm_jax
from sbm_jax import data
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError, require
from sbm_jax.experiment_config import ExperimentConfig, read_config
from sbm_jax.formats import make_format
from sbm_jax.report.images import cell, cell_size, mosaic
from sbm_jax.trained import TrainedSystem
from sbm_jax.types import Data

SYSTEMS = ("sbm_vae_m_diffusion", "sbm_vae_m")
BETWEEN = 14  # pixels from panel to panel


def picture(workdir: Path, systems: tuple[str, ...] = SYSTEMS, row: int = 0, num_samples: int = 3) -> np.ndarray:
    """Return the panels of all systems side by side, uint8 [H, W, 4].

    Raises:
      SbmError: if the run is not finished or lacks a system, or on an invalid row or number of samples.
    """
    require(num_samples >= 1, "--samples", num_samples, "1 or more")
    config = read_config(workdir)
    real = real_row(config, workdir, row)
    panels = [panel(sbm_jax.load(workdir, system), real, num_samples) for system in systems]
    gap = np.zeros((len(panels[0]), BETWEEN, 4), np.uint8)
    return np.concatenate([part for one in panels for part in (gap, one)][1:], axis=1)


def real_row(config: ExperimentConfig, workdir: Path, row: int) -> Data:
    """Return a test row of the jointly modelled modalities as networks see it, {modality: [1, *shape]}.

    Raises:
      SbmError: if there is no such row, or a modality is not an image.
    """
    for modality in config.joint_modalities:
        if not make_format(modality).is_picture:
            raise SbmError(f"modality {modality.name!r} is not an image; only runs with image modalities can be shown.")
    names = [modality.name for modality in config.joint_modalities]
    test = data.check(data.load(config.data, workdir / "data", names), config.joint_modalities).test
    require(0 <= row < len(test), "--row", row, f"0 to {len(test) - 1}")
    return {name: np.asarray(values) for name, values in in_units(test.read(names, np.array([row]))).items()}


def panel(model: TrainedSystem, real: Data, num_samples: int) -> np.ndarray:
    """Return the lines of one system, uint8 [H, W, 4]."""
    names = [modality.name for modality in model.modalities]
    given = {
        modality.name: make_format(modality).to_raw(np.repeat(real[modality.name], len(names), axis=0))
        for modality in model.modalities
    }
    rest = ~np.eye(len(names), dtype=bool)  # row i lacks modality i
    drawn = model.generate(given, names, observed=rest, num_samples=num_samples, raw=False).data
    columns = [[real[name][0], *drawn[name][number]] for number, name in enumerate(names)]
    size = cell_size([column[0].shape for column in columns])
    lines = [[cell(values, size) for values in line] for line in zip(*columns, strict=True)]
    is_real = np.arange(len(lines)) == 0
    return mosaic(lines, np.tile(is_real[:, None], (1, len(names))))


def main() -> None:
    """Draw the figure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="work directory of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="a PNG file")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--row", type=int, default=0, help="row of the test split")
    parser.add_argument("--samples", type=int, default=3, help="lines below the real row")
    arguments = parser.parse_args()
    try:
        pixels = picture(arguments.workdir, tuple(arguments.systems), arguments.row, arguments.samples)
    except SbmError as error:
        raise SystemExit(f"error: {error}") from error
    Image.fromarray(pixels).save(arguments.out)


if __name__ == "__main__":
    main()
