"""The server of the explorer: its address, and the files that it may read."""

import asyncio
import ipaddress
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbm_jax.errors import SbmError, require
from sbm_jax.explore.work import Work
from sbm_jax.storage import user_path

MOST_BYTES = 32 * 2**20
"""The largest size of an uploaded file."""


def serve(workdir: str, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
      workdir: the work directory of a finished run.
      host: the address to listen on.
      port: the port to listen on; 0 for any free one.

    Raises:
      SbmError: if there is no finished run, Gradio is not installed, or the address is taken.
    """
    with served(Work(user_path(workdir, "--workdir")), host, port) as address:
        print(f"Explorer: {address} (stop with Ctrl-C)", flush=True)
        if not _is_loopback(host):
            print(f"warning: anyone who can reach {host} can use it.", flush=True)
        while True:
            time.sleep(3600)


@contextmanager
def served(work: Work, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve the page in threads while a block runs, and yield its address.

    Nothing is sent to third parties: analytics, external fonts and public links are off, and Gradio's environment
    variables are ignored. The server can read only its own directory of uploads, which is removed at the end.

    Args:
      work: the work directory to explore.
      host: the address to listen on.
      port: the port to listen on; 0 for any free one.

    Raises:
      SbmError: if Gradio is not installed, or the address is taken.
    """
    require(0 <= port < 2**16, "--port", port, "0 to 65535")
    with tempfile.TemporaryDirectory(prefix="explore_") as uploads, _own_environment(uploads):
        page = _make_page(work, Path(uploads))
        try:
            _, address, _ = page.blocks.launch(**_options(host, port))
        except OSError as error:
            raise SbmError(f"--host={host} --port={port} cannot be listened on: {error}. Choose others.") from error
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* samples diverged", RuntimeWarning)  # the page says so
            try:
                yield address
            finally:
                page.blocks.close(verbose=False)
                asyncio.set_event_loop(None)  # Gradio sets one for this thread, and never closes it


def _make_page(work: Work, uploads: Path) -> Any:
    try:
        from sbm_jax.explore.page import Page
    except ModuleNotFoundError as error:
        raise SbmError(
            f"the explorer needs Gradio, which is not installed ({error}). Install it: pip install 'sbm_jax[explore]'."
        ) from error
    return Page(work, uploads)


@contextmanager
def _own_environment(uploads: str) -> Iterator[None]:
    """Set the environment variables that configure Gradio, and restore the previous ones at the end."""
    before = {name: value for name, value in os.environ.items() if name.startswith(("GRADIO_", "HF_HUB_DISABLE"))}
    own = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": uploads,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name in before:
        del os.environ[name]
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
        os.environ.update(before)


def _options(host: str, port: int) -> dict[str, Any]:
    """Return the options of Gradio's `launch`."""
    import gradio

    from sbm_jax.explore.show import CSS

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # system fonts
    return {
        "server_name": host,
        "server_port": port or _free_port(host),
        "prevent_thread_lock": True,
        "quiet": True,
        "share": False,
        "inbrowser": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "allowed_paths": [],
        "max_file_size": MOST_BYTES,
        "footer_links": [],
        "theme": gradio.themes.Default(**fonts),
        "css": CSS,
    }


def _free_port(host: str) -> int:
    """Return a port that is currently free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
