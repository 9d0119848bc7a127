"""Images per CPU second of diffusion decoders, against the number of evaluations, with untrained networks.

    python -m benchmarks.decoder_throughput
    taskset -c 0 python -m benchmarks.decoder_throughput --threads=1 --against=torch

Prints the command and the versions, then one JSON line per network and number of evaluations. With `--against=torch`
(the extra ``bench``), diffusers' UNet2D with the same widths, blocks and attention as ours samples in a PyTorch loop of
DDIM, channels last, and the ratio is printed.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import measure_in_turn, rates
from sbm_jax import report
from sbm_jax.networks.denoisers import DenoiserConfig
from sbm_jax.networks.diffusion_decoder import CPU_CHUNK, Condition, DiffusionDecoder
from sbm_jax.networks.diffusion_decoder_config import DiffusionDecoderConfig, PictureSampler

NETWORKS = {
    "patch": DenoiserConfig("patch", width=96, depth=4),
    "unet": DenoiserConfig("unet", width=32, depth=1, multipliers=(1, 2, 2), attention=(2,)),
}
SIDE = 28


def make_decoder(name: str, evaluations: int) -> DiffusionDecoder:
    """Return a decoder of `NETWORKS` that is conditioned on images."""
    config = DiffusionDecoderConfig(NETWORKS[name], sampler=PictureSampler("ddim", evaluations))
    return DiffusionDecoder((SIDE, SIDE, 3), (0.0, 1.0), config, has_picture=True)


def make_ours(name: str, batch: int, evaluations: int) -> Callable[[], Any]:
    """Return a compiled function that samples a batch."""
    decoder = make_decoder(name, evaluations)
    condition = Condition(picture=jnp.full((batch, SIDE, SIDE, 3), 0.5))
    params = decoder.init(jax.random.key(0), jax.tree.map(lambda array: array[:1], condition))
    draw = jax.jit(lambda params, key, condition: decoder.sample(params, key, condition).z)
    compiled = draw.lower(params, jax.random.key(1), condition).compile()
    return lambda: jax.block_until_ready(compiled(params, jax.random.key(1), condition))


def make_peer_network() -> Any:
    """Return diffusers' UNet2D with the sizes of `NETWORKS["unet"]`, also conditioned on images."""
    from diffusers import UNet2DModel  # not a dependency

    return UNet2DModel(
        sample_size=SIDE,
        in_channels=6,
        out_channels=3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    ).eval()


def make_peer(batch: int, evaluations: int, threads: int | None, at_once: int) -> Callable[[], Any]:
    """Return a function that samples as many with diffusers' network, `at_once` at a time, on the grid of its DDIM."""
    import torch
    from diffusers import DDIMScheduler

    if threads:
        torch.set_num_threads(threads)
    network = make_peer_network().to(memory_format=torch.channels_last)  # faster on CPUs
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(evaluations)
    condition = torch.full((at_once, 3, SIDE, SIDE), 0.5).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def draw() -> Any:
        parts = []
        for _ in range(batch // at_once):
            x = torch.randn((at_once, 3, SIDE, SIDE))
            for t in scheduler.timesteps:
                x = scheduler.step(network(torch.cat([x, condition], dim=1), t).sample, t, x).prev_sample
            parts.append(x)
        return torch.cat(parts)

    return draw


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one row per combination, the peer's next to ours."""
    for evaluations in arguments.evaluations:
        runs = {name: make_ours(name, arguments.batch, evaluations) for name in arguments.networks}
        if arguments.against:
            # Ours samples a few at a time on CPUs; the peer may do either.
            for at_once in {CPU_CHUNK if arguments.batch % CPU_CHUNK == 0 else arguments.batch, arguments.batch}:
                peer = make_peer(arguments.batch, evaluations, arguments.threads, at_once)
                runs[f"diffusers, {at_once} at a time"] = peer
        for run in runs.values():
            run()
        times = measure_in_turn(runs, arguments.repeats)
        for name in runs:
            yield {"network": name, "batch": arguments.batch, **rates(arguments.batch, evaluations, times[name])}
        if arguments.against and "unet" in runs:
            best = min(value["cpu_seconds"] for name, value in times.items() if name.startswith("diffusers"))
            ratio = best / times["unet"]["cpu_seconds"]
            yield {"evaluations": evaluations, "diffusers over unet, CPU time": round(ratio, 3)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--evaluations", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", choices=["torch"])
    parser.add_argument("--threads", type=int, help="PyTorch's threads; limit XLA's by `taskset -c 0`")
    arguments = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks.decoder_throughput", *sys.argv[1:]])
    print(json.dumps({"command": command, **report.versions(), "device": report.device()}))
    for row in rows(arguments):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
