"""Which score network learns best for the same training compute, on the latents of a trained work directory.

    python -m benchmarks.score_networks --workdir=runs/quickstart

Every network is trained on the same latent bank for the same number of floating-point operations (counted by XLA for
one compiled step), and judged by the same classifier with the same sampler. Writes one JSON line per network to
standard output, and a table at the end.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import absl.logging
import jax
import jax.numpy as jnp
from absl import app, flags
from rich.console import Console
from rich.table import Table

from sbm_jax import experiment
from sbm_jax.errors import SbmError
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.training import loop, parallel

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "A work directory whose training is complete.")
_FRACTION = flags.DEFINE_float("fraction", 0.5, "Compute for each network, as a share of the work directory's own.")
_NETWORKS = flags.DEFINE_list("networks", None, "Some of the networks; default: all.")

NETWORKS = {
    "transformer 128x4": ScoreNetworkConfig("transformer", 128, 4),
    "mlp 512x4": ScoreNetworkConfig("mlp", 512, 4),
    "mlp 512x4, dropout 0.2": ScoreNetworkConfig("mlp", 512, 4, dropout=0.2),
    "unet 32": ScoreNetworkConfig("unet", 32),  # needs latents that make a map of 8x8 or more
}
SHOWN = ("coherence/given_rest", "coherence/given_1", "coherence/unconditional_all")


def _flops_per_step(stage, upstream) -> float:
    """Return the floating-point operations of one optimiser step, as XLA counts them."""
    mesh = parallel.data_mesh(jax.devices()[:1])
    key = jax.random.key(0)
    state = jax.eval_shape(lambda k, u: loop.init_state(stage, k, u), key, upstream)
    rows = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), stage.rows(upstream))
    indices = jnp.zeros((1, stage.training.batch_size), jnp.int32)
    compiled = loop.make_train_steps(stage, mesh).lower(state, upstream, rows, indices, key).compile()
    return compiled.cost_analysis()["flops"]


def _score_stage(config):
    return experiment.SYSTEMS["sbm_vae"](config).score_stage()


def _with_network(config, network, num_steps):
    training = dataclasses.replace(config.score.training, num_steps=num_steps)
    return dataclasses.replace(config, score=dataclasses.replace(config.score, network=network, training=training))


def _run(workdir: Path, config, label: str, network: ScoreNetworkConfig, budget: float, upstream) -> dict:
    flops = _flops_per_step(_score_stage(_with_network(config, network, 1)), upstream)
    trial = _with_network(config, network, max(1, round(budget / flops)))
    directory = workdir / "score_networks" / label.replace(" ", "_").replace(",", "")
    shutil.rmtree(directory / "stages" / "score_sbm_vae", ignore_errors=True)
    for stage in ("autoencoders_vae", "latents_vae", "classifier"):
        shutil.copytree(workdir / "stages" / stage, directory / "stages" / stage, dirs_exist_ok=True)
    shutil.copytree(workdir / "data", directory / "data", dirs_exist_ok=True)
    results = experiment.run(trial, directory)
    metrics = results["systems"]["sbm_vae"]["metrics"]
    return {
        "network": label,
        "gflop_per_step": flops / 1e9,
        "steps": trial.score.training.num_steps,
        "seconds": results["seconds"]["score_sbm_vae"],
        **{name: metrics[name]["value"] for name in SHOWN},
    }


def _main(argv: list[str]) -> None:
    del argv
    absl.logging.set_verbosity(absl.logging.ERROR)  # of orbax and tensorflow-datasets
    try:
        workdir = Path(_WORKDIR.value)
        config = experiment.read_config(workdir)
        config = dataclasses.replace(config, systems=("sbm_vae",))
        upstream = {"latents_vae": loop.load_product("latents_vae", workdir)}
        own = _flops_per_step(_score_stage(config), upstream) * config.score.training.num_steps
        rows = []
        for label in _NETWORKS.value or NETWORKS:
            try:
                rows.append(_run(workdir, config, label, NETWORKS[label], _FRACTION.value * own, upstream))
            except SbmError as error:
                print(json.dumps({"network": label, "left_out": str(error)}), flush=True)
                continue
            print(json.dumps(rows[-1]), flush=True)
    except SbmError as error:
        sys.exit(f"error: {error}")
    table = Table(title=f"Same training compute: {_FRACTION.value * own / 1e12:.1f} TFLOP each")
    for name in rows[0]:
        table.add_column(name.removeprefix("coherence/"))
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    app.run(_main)
