"""The share of words in held-out captions of birds that a `tokens` codec reconstructs.

Captions of CUB-200-2011, ten per bird, by its official split: a codec is trained on captions of training birds, and
reconstructs those of unseen birds greedily, from the posterior means. By default some training birds are held out to
choose settings on; ``--final`` trains on all training birds and evaluates on the test birds.

    python -m benchmarks.captions --directory=DIR --final

DIR has the official ``images.txt``, ``train_test_split.txt`` and ``text/``. It prints one line of JSON: the shares of
correct words (unknown words never are), of correct ids (unknown words are, if they come back as unknown), and of
correct whole captions, each on held-out and on training birds, and the KL divergence in nats.

Measured on two cores in 13 minutes, on captions of the 243 test birds: 98.6 % of the ids and 97.1 % of the words come
back, from 158 nats; of training captions, all ids do. 1.5 % of the words are not in the vocabulary, the 562 words that
occur at least twice in training captions.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.distributions import standard_normal_kl
from sbm_jax.formats import build_vocabulary, make_format
from sbm_jax.formats.text import FIRST_WORD, UNKNOWN_ID
from sbm_jax.networks.codecs import make_codec
from sbm_jax.systems.codec_training import AutoencoderConfig, CodecTraining
from sbm_jax.training.stages import run_stages
from sbm_jax.types import CodecConfig, Dataset, FormatConfig, Modality, OptimizerConfig, Split, TrainingConfig

LENGTH, LATENT = 80, 256  # ids per caption, entries of the latent
HELD_OUT = 45  # training birds held out to choose settings on
SHORT = 32  # the most ids of a short caption


def read_captions(directory: Path) -> dict[str, list[list[str]]]:
    """Read the captions of each bird in the official splits, ``"train"`` and ``"test"``."""
    paths = dict(line.split() for line in (directory / "images.txt").read_text().splitlines())
    in_train = dict(line.split() for line in (directory / "train_test_split.txt").read_text().splitlines())
    birds: dict[str, list[list[str]]] = {"train": [], "test": []}
    for number, path in paths.items():
        lines = (directory / "text" / path).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        birds["train" if in_train[number] == "1" else "test"].append([line for line in lines if line.strip()])
    return birds


def split_birds(birds: dict[str, list[list[str]]], final: bool) -> tuple[list[str], list[str]]:
    """Return the captions to train on, and those of the held-out birds."""
    order = np.random.default_rng(0).permutation(len(birds["train"]))
    held_out = [birds["train"][number] for number in order[:HELD_OUT]]
    trained = [birds["train"][number] for number in order[HELD_OUT:]]
    pair = (birds["train"], birds["test"]) if final else (trained, held_out)
    return tuple([caption for bird in part for caption in bird] for part in pair)


def train(modality: Modality, ids: list[np.ndarray], arguments: argparse.Namespace) -> dict:
    """Train the codec, and return its parameters."""
    optimizer = OptimizerConfig(arguments.learning_rate, warmup_steps=100, clip_norm=1.0)
    training = TrainingConfig(arguments.steps, arguments.batch_size, optimizer, steps_per_dispatch=50)
    own = CodecTraining("captions", (modality,), AutoencoderConfig(training), 0, False, False)
    trained, other = (Split({modality.name: rows}) for rows in ids)
    stage = own.stage(Dataset(trained, other, other, {}, {"captions": arguments.final}))
    with tempfile.TemporaryDirectory() as workdir:
        products = run_stages([stage], Path(workdir), 0)
    return own.codecs.per_modality.own(products["captions"], modality.name)


def judge(modality: Modality, params: dict, ids: np.ndarray) -> dict[str, float]:
    """Return the shares of words, ids and whole captions, int [N, L], that come back, and the KL divergence in nats."""
    codec = make_codec(modality, AutoencoderConfig().network)

    @jax.jit
    def reconstruct(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        posterior = codec.encode(params, x)
        output = codec.decode(params, posterior[0])
        loss = codec.loss(params, jax.random.key(0), x, output)
        return codec.sample(params, jax.random.key(0), output), standard_normal_kl(*posterior), loss

    parts = [reconstruct(ids[start : start + 250]) for start in range(0, len(ids), 250)]
    found, kl, loss = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    real, right = ids > 0, found == ids
    unknown, short = ids == UNKNOWN_ID, real.sum(axis=1) <= SHORT
    return {
        "words": float((right & (ids >= FIRST_WORD))[real].mean()),
        "ids": float(right[real].mean()),
        "captions": float(right.all(axis=1).mean()),
        "ids of short captions": float(right[short][real[short]].mean()),
        "captions without unknown words": float(right.all(axis=1)[~unknown.any(axis=1)].mean()),
        "unknown words that are right": float(right[unknown].mean()),
        "unknown": float(unknown[real].mean()),
        "kl": float(kl.mean()),
        "nats": float(loss.mean()),
    }


def parse() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--beta", type=float, default=0.005, help="weight of the KL divergence")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--network", type=json.loads, default={}, help="options of the codec, as JSON")
    parser.add_argument("--least", type=int, default=2, help="least number of occurrences of a word in the vocabulary")
    return parser.parse_args()


def make_modality(words: tuple[str, ...], arguments: argparse.Namespace) -> Modality:
    """Return the modality of captions with this vocabulary."""
    return Modality(
        "caption",
        (LENGTH,),
        LATENT,
        CodecConfig("tokens", arguments.network, beta=arguments.beta),
        likelihood="categorical",
        vocabulary_size=FIRST_WORD + len(words),
        format=FormatConfig("text", {"words": words}),
    )


def main() -> None:
    """Train, evaluate, and print."""
    arguments = parse()
    captions = split_birds(read_captions(arguments.directory), arguments.final)
    words = build_vocabulary(captions[0], arguments.least)
    modality = make_modality(words, arguments)
    text = make_format(modality)
    ids = [text.to_array(np.array(part), name) for part, name in zip(captions, ("train", "held-out"), strict=True)]
    start = time.perf_counter()
    params = train(modality, ids, arguments)
    seconds = time.perf_counter() - start
    found = {"held-out": judge(modality, params, ids[1]), "train": judge(modality, params, ids[0][:1000])}
    codec = make_codec(modality, AutoencoderConfig().network)
    some = ids[1][:5]
    shown = codec.sample(params, jax.random.key(0), codec.decode(params, codec.encode(params, jnp.asarray(some))[0]))
    for true, made in zip(text.to_raw(some), text.to_raw(np.asarray(shown)), strict=True):
        print(f"  {true}\n  {made}")
    settings = {name: str(value) for name, value in vars(arguments).items() if name != "directory"}
    print(json.dumps({"vocabulary": len(words), "seconds": round(seconds), **found, "settings": settings}))


if __name__ == "__main__":
    main()
