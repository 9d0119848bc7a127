"""One process of the jobs that `test_pod` compares: trains two small systems, samples them, and writes what came out.

    python -m tests.robustness.pod_worker DIRECTORY [split] [records]

It takes its place from the variables that `sbm_jax.parallel.start` reads.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from sbm_jax import parallel
from sbm_jax.data.records import RecordsConfig, load_records
from sbm_jax.data.write_records import write_records
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.runner import make_generate
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.joinings import Mopoe
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.systems.sbm import Sbm
from sbm_jax.systems.score_stage import SbmConfig, ScoreConfig
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.training.loop import init_state, state_shardings
from sbm_jax.training.stages import run_stages
from sbm_jax.types import Dataset, Modality, OptimizerConfig, Split, Stage, TrainingConfig

MODALITIES = (Modality("left", (6,), 4, "mlp"), Modality("right", (5,), 3, "mlp"), Modality("top", (4,), 4, "mlp"))


def dataset() -> Dataset:
    """Three vectors that depend on one number; uneven splits."""

    def split(num_rows: int, seed: int) -> Split:
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=(num_rows, 1))
        data = {m.name: (shared + 0.3 * rng.normal(size=(num_rows, *m.shape))).astype(np.float32) for m in MODALITIES}
        return Split(data)

    return Dataset(split(37, 0), split(11, 1), split(9, 2), {}, {"made for": "tests"})


def systems(num_steps: int, split: bool) -> list:
    """A latent score model and a multimodal VAE."""
    training = TrainingConfig(
        num_steps, 8, OptimizerConfig(ema_decay=0.9), 2, checkpoint_every=4, validate_every=6, split_parameters=split
    )
    autoencoder = AutoencoderConfig(training, AutoencoderNetworkConfig((16,)))
    score = ScoreConfig(training, ScoreNetworkConfig("transformer", 32, 1))
    joint = JointPosteriorConfig(training, latent_size=4, network=AutoencoderNetworkConfig((16,)))
    return [
        Sbm("sbm_vae", MODALITIES, SbmConfig(autoencoder, score)),
        JointPosterior("mopoe", MODALITIES, joint, Mopoe()),
    ]


def check_split(stage: Stage) -> None:
    """Check that a part of what is trained is held in parts."""
    state = jax.eval_shape(lambda: init_state(stage, jax.random.key(0), {}))
    shardings = jax.tree.leaves(state_shardings(stage, state, parallel.data_mesh()))
    assert any(not sharding.is_fully_replicated for sharding in shardings)


def on_disk(data: Dataset, directory: Path) -> Dataset:
    """Return the same data set as records, which the first process writes."""
    with parallel.main_first("records"):
        for name in ("train", "validation", "test") if parallel.is_main() else ():
            write_records(directory, name, [getattr(data, name).data])
    return load_records(RecordsConfig(str(directory)), directory)


def main(directory: Path, split: bool, records: bool) -> None:
    """Train, sample five rows (which no number of devices here divides), and write samples and metrics."""
    parallel.start()
    parallel.LARGE = 64 if split else parallel.LARGE
    data, options, found = dataset(), SamplerOptions(num_steps=3), {}
    data = on_disk(data, directory / "records") if records else data
    made = systems(12, split)
    stages = [stage for system in made for stage in system.stages(data)]
    if split:
        check_split(stages[0])
    products = run_stages(stages, directory, seed=0)
    observed = np.array([[True, False, False], [False, True, True], [False] * 3, [True] * 3, [False, False, True]])
    given = {name: values[:5] for name, values in data.test.data.items()}
    for system in made:
        result = make_generate(system, products, options)(jax.random.key(1), given, observed, 2)
        found |= {f"{system.name}/{name}": np.asarray(values) for name, values in result.data.items()}
    if parallel.is_main():
        np.savez(directory / f"samples_{jax.process_count()}x{jax.local_device_count()}.npz", **found)
    parallel.wait_for_all("written")


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    main(Path(sys.argv[1]), "split" in sys.argv[2:], "records" in sys.argv[2:])
