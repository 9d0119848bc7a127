"""Training that starts from the weights of pretrained networks: a stage reads their files, another one is given them.

So they are no constants of a compiled program, whose size is limited.
"""

from flax.traverse_util import flatten_dict, unflatten_dict

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import Codecs, files
from sbm_jax.types import OptimizerConfig, Params, Stage


def start_stage(name: str, codecs: Codecs) -> Stage | None:
    """Return the stage that reads the files with which training starts; None where no codec has any.

    Args:
      name: of the stage that is trained.
      codecs: which it trains.
    """
    if not codecs.files:
        return None
    digests = [[option, files.digest(path)] for option, path in codecs.files]
    return Stage(name=f"{name}_start", settings={"files": digests}, init=lambda key, upstream: codecs.read())


def started(params: Params, read: Params) -> Params:
    """Return fresh parameters with what was read in the place of those that it has."""
    return unflatten_dict({**flatten_dict(params), **flatten_dict(read)})


def check_start(codecs: Codecs, optimizer: OptimizerConfig) -> None:
    """Check the files with which training starts, and that it leaves alone what is frozen.

    Raises:
      SbmError: if a file can not be read or is of another network, or weights would decay that are frozen.
    """
    codecs.read()
    for name, codec in codecs.pretrained.items():
        if codec.frozen and optimizer.weight_decay:
            raise SbmError(
                f"modality {name!r}: codec.network.frozen keeps {', '.join(codec.frozen)} as they are, and "
                f"optimizer.weight_decay ({optimizer.weight_decay:g}) would not. Set it to 0 in codec.training, or "
                "freeze nothing."
            )
