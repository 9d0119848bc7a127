"""The explorer: a page on which to try a trained system.

    python -m sbm_jax.explore --workdir=runs/quickstart

It shows a held-out row, or files of one's own, and what the system makes of any part of it. It needs the extra
``explore``. What it takes from the page is checked as `TrainedSystem.generate` checks it, nothing but what was uploaded
is read, and everything shown is a part of the page itself.
"""

from collections.abc import Sequence

from sbm_jax.arguments import Parser


def main(name: str, arguments: Sequence[str]) -> None:
    """Serve the explorer until Ctrl-C.

    Args:
      name: of the command, for its help.
      arguments: its options.

    Raises:
      SbmError: if there is no finished run, Gradio is not there, or the address is taken.
    """
    options = _parser(name).parse_args(arguments)
    from sbm_jax.explore.serving import serve

    serve(options.workdir, options.host, options.port)


def _parser(name: str) -> Parser:
    parser = Parser(
        name,
        "Open a page on which to try a trained system.\n"
        "It needs an extra: pip install 'sbm_jax[explore]'. Whoever reaches the page can use this machine's processor\n"
        "and see the held-out data; so it is for this machine only, unless --host says otherwise.",
        f"{name} --workdir=runs/quickstart",
    )
    parser.add_workdir()
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="to listen on, 0 for any; default: 7860")
    return parser
