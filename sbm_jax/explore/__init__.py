"""The explorer: a page for trying out a trained system.

    python -m sbm_jax.explore --workdir=runs/quickstart

It shows a held-out row, or your own files, and what the system generates from any part of it. It needs the extra
``explore``. Input from the page is checked as in `TrainedSystem.generate`, only uploaded files are read, and everything
shown is embedded in the page itself.
"""

from collections.abc import Sequence

from sbm_jax.arguments import Parser


def main(name: str, arguments: Sequence[str]) -> None:
    """Serve the explorer until Ctrl-C.

    Args:
      name: name of the command, for its help.
      arguments: its options.

    Raises:
      SbmError: if there is no finished run, Gradio is not installed, or the address is taken.
    """
    options = _parser(name).parse_args(arguments)
    from sbm_jax.explore.serving import serve

    serve(options.workdir, options.host, options.port)


def _parser(name: str) -> Parser:
    parser = Parser(
        name,
        "Open a page for trying out a trained system.\n"
        "It needs an extra: pip install 'sbm_jax[explore]'. Anyone who can reach the page can use this machine's\n"
        "processor and see the held-out data, so it serves this machine only, unless --host says otherwise.",
        f"{name} --workdir=runs/quickstart",
    )
    parser.add_workdir()
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on; default: 127.0.0.1"
    )
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="port to listen on, 0 for any; default: 7860"
    )
    return parser
