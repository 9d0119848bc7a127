"""The command `sbm-jax`: train, generate, export, explore and info.

What a command needs is imported when it runs, so that help and errors of the command line come at once.
"""

import sys
from collections.abc import Sequence

from sbm_jax.arguments import Parser, run
from sbm_jax.errors import unknown

COMMANDS = {
    "train": "train, evaluate and write a report, or go on where that was interrupted",
    "generate": "write samples of some modalities, given files of others",
    "export": "write a trained sampler that runs with JAX alone",
    "explore": "open a page on which to try a trained system",
    "info": "tell what a work directory holds",
}
"""What each command does."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
      arguments: its name and options; None for those of the process. The process ends with 0, 1 after an error that
        the user can mend, 2 after a wrong option, and 130 after Ctrl-C.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return
    if name == "--version":
        from sbm_jax import __version__

        print(f"sbm_jax {__version__}")
        return
    run(lambda: _run(name, rest))


def _run(name: str, arguments: Sequence[str]) -> None:
    """Read the options of a command and run it."""
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    if name == "explore":
        from sbm_jax import explore

        explore.main(f"sbm-jax {name}", arguments)
        return
    parser = PARSERS[name]()
    if name == "train":
        parser.parse_known_args(arguments)  # for --help; the others are read where the config is
        from sbm_jax import main as training

        sys.argv = [f"sbm-jax {name}", *arguments]
        training.run()
        return
    options = parser.parse_args(arguments)
    from sbm_jax import commands

    getattr(commands, name)(options)


def _overview() -> str:
    lines = [f"  {name:10}{told}" for name, told in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sbm-jax COMMAND [OPTIONS]",
            "",
            "Score-based multimodal autoencoders: any modality from any others.",
            "",
            *lines,
            "",
            "sbm-jax COMMAND --help explains the options of each.",
        ]
    )


# MARK: Options


def _parser(name: str, more: str, example: str) -> Parser:
    return Parser(f"sbm-jax {name}", f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.{more}", example)


def _train_parser() -> Parser:
    parser = _parser(
        "train",
        " The same as python -m sbm_jax.main.",
        "sbm-jax train --config=configs/quickstart.py:smoke --workdir=runs/smoke --config.sampler.num_steps=20",
    )
    parser.add_argument("--config", metavar="FILE[:VARIANTS]", help="the experiment: a file of configs/, or your own")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="another value of any field of the config")
    parser.add_argument("--workdir", metavar="DIR", help="where everything is kept; default: runs/NAME_OF_THE_CONFIG")
    parser.add_argument("--stages", metavar="NAME,...", help="only these training stages, and no evaluation")
    parser.add_argument("--profile", action="store_true", help="write a trace of some steps of each stage")
    parser.add_argument("--grace_seconds", metavar="S", help="seconds from SIGTERM until the process ends")
    return parser


def _info_parser() -> Parser:
    parser = _parser("info", "", "sbm-jax info --workdir=runs/quickstart")
    parser.add_workdir()
    return parser


def _generate_parser() -> Parser:
    parser = _parser(
        "generate",
        "\nPictures are .png (.jpg is read too), sounds .wav, texts and names of classes .txt, everything else .npy.\n"
        "Each sample is a file OUTPUT/MODALITY/ROW_SAMPLE. Of several rows, the files of each have one name.",
        "sbm-jax generate --workdir=runs/mine --given photo=bird.png --targets caption --samples 4 --output birds",
    )
    parser.add_workdir()
    parser.add_argument("--output", required=True, metavar="DIR", help="a new directory for the samples")
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a file of a modality, or a folder with one for each row, in the order of their names; may be repeated",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="a text or class of a modality, in place of a file; may be repeated",
    )
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="what to generate; default: all that is not given")
    parser.add_argument("--rows", type=int, metavar="N", help="rows where nothing is given; default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="equal seeds give equal samples; default: 0")
    _add_sampling(parser)
    return parser


def _export_parser() -> Parser:
    parser = _parser(
        "export",
        "\nThe file is a serialised jax.export artifact, which jax.export.deserialize reads. Beside it, a .json file\n"
        "says what the program takes and returns.",
        "sbm-jax export --workdir=runs/mine --given photo --platforms cpu cuda --output sampler.jaxexport",
    )
    parser.add_workdir()
    parser.add_argument("--output", required=True, metavar="FILE", help="where the program is written")
    parser.add_argument("--given", nargs="+", default=[], metavar="NAME", help="what is given; default: nothing")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="what to generate; default: all that is not given")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="rows of a call; default: 1")
    parser.add_argument(
        "--platforms", nargs="+", metavar="NAME", help="some of cpu, cuda, rocm and tpu; default: the one in use"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="write the weights to this .safetensors file instead of into the program, which then takes them as its "
        "first argument",
    )
    _add_sampling(parser)
    return parser


def _add_sampling(parser: Parser) -> None:
    parser.add_argument("--system", metavar="NAME", help="one of the trained systems; default: the first")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="samples of each row; default: 1")
    parser.add_argument("--strength", type=float, metavar="X", help="of the guidance, 0 or more; default: the config's")
    parser.add_argument("--solver", metavar="NAME", help="default: the config's")
    parser.add_argument("--steps", type=int, metavar="N", help="of the solver; default: the config's")


PARSERS = {
    "train": _train_parser,
    "generate": _generate_parser,
    "export": _export_parser,
    "info": _info_parser,
}
"""What makes the parser of each command but `explore`, which has its own."""
