"""Weights files of small random networks, as the reference implementations would write them."""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict


def tensors_of(module, *inputs, seed=0, prefix="", method=None) -> dict[str, np.ndarray]:
    """Return fresh parameters of a module by the names, and in the shapes, of `weights.py`."""
    params = jax.jit(lambda key: module.init(key, *inputs, method=method))(jax.random.key(seed))["params"]
    found = {}
    for (*modules, leaf), value in flatten_dict(params).items():
        last = "weight" if leaf in ("kernel", "scale", "embedding") else leaf
        name = prefix + ".".join([*modules, last])
        value = np.asarray(value)
        value = np.moveaxis(value, (-2, -1), (1, 0)) if leaf == "kernel" else value
        found[name] = np.ascontiguousarray(value)
    return found


def write(path: Path, tensors: dict[str, np.ndarray]) -> str:
    """Write a safetensors file and return its path."""
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return str(path)


def write_tokenizer(path: Path, words: list[str], begin: str = "", end: str = "", unknown: str = "<unk>") -> str:
    """Write a tokenizer of whole words, which gives a text a begin and an end, and return its path.

    The ids are those of `words`, then that of unknown words, the begin and the end.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([*words, unknown, *filter(None, [begin, end])])}
    found = tokenizers.Tokenizer(models.WordLevel(vocabulary, unknown))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.decoder = decoders.Fuse() if not words else decoders.WordPiece(prefix="##")
    if begin:
        pair = [(begin, vocabulary[begin]), (end, vocabulary[end])]
        found.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=pair)
    found.save(str(path))
    return str(path)
