"""The command `sbm-jax`: train, generate, export, explore and info.

Each command imports what it needs when it runs, so that help and command-line errors appear at once.
"""

import sys
from collections.abc import Sequence

from sbm_jax.arguments import Parser, run
from sbm_jax.errors import unknown

COMMANDS = {
    "train": "train, evaluate and write a report, or resume an interrupted run",
    "generate": "write samples of some modalities, given files of others",
    "export": "write a trained sampler that runs with JAX alone",
    "explore": "open a page for trying out a trained system",
    "info": "show what a work directory holds",
}
"""What each command does."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
      arguments: the command's name and options; None reads `sys.argv`. The process exits with 0, 1 after an error that
        the user can fix, 2 after a wrong option, and 130 after Ctrl-C.
    """
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.append("")  # a config may name parts in the current folder; last, so that it hides no package
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
        if not {"-h", "--help"}.isdisjoint(arguments):
            parser.parse_args(["--help"])  # prints it and ends
        from sbm_jax import training_command  # reads the options together with the config

        sys.argv = [f"sbm-jax {name}", *arguments]
        training_command.run()
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
            "sbm-jax COMMAND --help explains the options of a command.",
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
    parser.add_argument("--config.FIELD", metavar="VALUE", help="override any field of the config")
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
        "\nImages are .png (.jpg is read too), sounds .wav, texts and class names .txt, and everything else .npy.\n"
        "Each sample is a file OUTPUT/MODALITY/ROW_SAMPLE. With several rows, all files of one row share a name.",
        "sbm-jax generate --workdir=runs/mine --given photo=bird.png --targets caption --samples 4 --output birds",
    )
    parser.add_workdir()
    parser.add_argument("--output", required=True, metavar="DIR", help="a new directory for the samples")
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a file of a modality, or a folder with one file per row, sorted by name; may be repeated",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="a text or class of a modality, in place of a file; may be repeated",
    )
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="what to generate; default: all that is not given")
    parser.add_argument("--rows", type=int, metavar="N", help="number of rows if nothing is given; default: 1")
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
    parser.add_argument("--given", nargs="+", default=[], metavar="NAME", help="the observed modalities; default: none")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="what to generate; default: all that is not given")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="rows per call; default: 1")
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
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="samples per row; default: 1")
    parser.add_argument(
        "--strength", type=float, metavar="X", help="strength of the guidance, 0 or more; default: the config's"
    )
    parser.add_argument("--solver", metavar="NAME", help="solver of the sampler; default: the config's")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the solver; default: the config's")


PARSERS = {
    "train": _train_parser,
    "generate": _generate_parser,
    "export": _export_parser,
    "info": _info_parser,
}
"""Builders of each command's parser, except for `explore`, which has its own."""
