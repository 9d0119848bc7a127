"""Starts training from pretrained weights.

A separate stage reads the weight files and hands the weights to training, so that they do not become constants of a
compiled program, whose size is limited.
"""

from flax.traverse_util import flatten_dict, unflatten_dict

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import Codecs, files
from sbm_jax.types import OptimizerConfig, Params, Stage


def start_stage(name: str, codecs: Codecs) -> Stage | None:
    """Return the stage that reads the weight files that training starts from; None if no codec has any.

    Args:
      name: name of the training stage.
      codecs: codecs that it trains.
    """
    if not codecs.files:
        return None
    digests = [[option, files.digest(path)] for option, path in codecs.files]
    return Stage(name=f"{name}_start", settings={"files": digests}, init=lambda key, upstream: codecs.read())


def started(params: Params, read: Params) -> Params:
    """Return fresh `params`, with the pretrained weights `read` in place of their counterparts."""
    return unflatten_dict({**flatten_dict(params), **flatten_dict(read)})


def check_start(codecs: Codecs, optimizer: OptimizerConfig) -> None:
    """Check the weight files that training starts from, and that frozen parameters stay frozen.

    Raises:
      SbmError: if a file cannot be read or belongs to another network, or weight decay would change frozen weights.
    """
    codecs.read()
    for name, codec in codecs.pretrained.items():
        if codec.frozen and optimizer.weight_decay:
            raise SbmError(
                f"modality {name!r}: codec.network.frozen freezes {', '.join(codec.frozen)}, but "
                f"optimizer.weight_decay ({optimizer.weight_decay:g}) would change it. Set weight_decay to 0 in "
                "codec.training, or freeze nothing."
            )
