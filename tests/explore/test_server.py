"""The explorer's server against what no page would send: paths, huge and wrong files, and many clients at once."""

import concurrent.futures
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbm_jax.errors import SbmError
from sbm_jax.explore import serving
from tests.explore.explored import Work

gradio = pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

pytestmark = [pytest.mark.filterwarnings("default")]  # Gradio and what it needs have warnings of their own
SETTINGS = ["first", 0, ["photo"], ["mask"], "heun", 10, None, 2, 0]
OWN = [None, None, "", None, "", None, None]
SECRET = "what nobody may read"


@pytest.fixture(scope="module")
def work():
    return Work()


@pytest.fixture(scope="module")
def server(work):
    """The address of a server that all tests share, as none may end it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "MOST_BYTES", 100_000)
        with serving.served(work) as address:
            yield address.rstrip("/")


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client
        assert client.get("/").status_code == 200  # whatever was sent, it still serves


def _generate(client, settings=SETTINGS, own=OWN):
    """Return the HTML that a call ends with, or its error event."""
    answer = client.post("/gradio_api/call/generate", json={"data": [*settings, *own]})
    if answer.status_code != 200:
        return answer.text
    with client.stream("GET", f"/gradio_api/call/generate/{answer.json()['event_id']}") as events:
        lines = [line for line in events.iter_lines() if line]
    return lines[-1].removeprefix("data: ") if "complete" in lines[-2] else f"{lines[-2]} {lines[-1]}"


def _html(client, settings=SETTINGS, own=OWN):
    return json.loads(_generate(client, settings, own))[0]


def _upload(client, name, content):
    """Return the file as a call takes it."""
    answer = client.post("/gradio_api/upload", files={"files": (name, content)})
    answer.raise_for_status()
    (path,) = answer.json()
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def _png(width=8, height=6):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 40, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_listens_on_this_machine_alone_and_asks_nothing_of_others(client, server):
    assert server.startswith("http://127.0.0.1:")
    assert client.get("/config").json()["analytics_enabled"] is False
    assert "fonts.googleapis.com" not in client.get("/theme.css").text


def test_settings_arrive_as_they_are_chosen(client, work):
    shown = _html(client, ["second", 2, ["mask", "caption"], ["wave"], "euler_maruyama", 7, 1.5, 3, 11])
    assert "7 evaluations of the network" in shown
    settings, own = work.calls[-1]
    assert (settings.system, settings.row, settings.given, settings.targets) == (
        "second",
        2,
        ("mask", "caption"),
        ("wave",),
    )
    assert (settings.solver, settings.steps, settings.strength) == ("euler_maruyama", 7, 1.5)
    assert (settings.samples, settings.seed, own) == (3, 11, {})


def test_uploads_and_texts_take_the_place_of_the_row(client, work):
    own = [_upload(client, "a.png", _png()), None, "a red bird", None, "blue", None, None]
    shown = _html(client, ["first", 0, ["photo", "caption", "color"], ["mask"], *SETTINGS[4:]], own)
    assert "a red bird" in shown
    found = work.calls[-1][1]
    assert found["photo"].shape == (6, 8, 3)
    assert (found["caption"], found["color"]) == ("a red bird", "blue")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={secret}",
        "/file={secret}",
        "/gradio_api/file=file://{secret}",
        "/gradio_api/file=../{secret}",
        "/gradio_api/file=..%2f..%2f..%2f..%2f..%2f..{quoted}",
        "/gradio_api/file=%2e%2e/%2e%2e/%2e%2e/%2e%2e{secret}",
        "/gradio_api/file=secret.txt",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{quoted}",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{quoted}",
        "/static/{secret}",
        "/gradio_api/proxy=file://{secret}",
        "/custom_component/a/b/c/..%2f..%2f..%2f..%2f..{quoted}",
        "/svelte/..%2f..%2f..%2f..%2f..{quoted}",
    ],
)
def test_no_path_reads_a_file(client, tmp_path, monkeypatch, path):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    answer = client.get(path.format(secret=secret, quoted=str(secret).replace("/", "%2f")))
    assert SECRET not in answer.text
    assert answer.status_code != 200 or "<html" in answer.text  # such as the page itself


@pytest.mark.parametrize("form", ["{}", "file://{}", "../../../../../../../..{}", "uploads/../..{}"])
def test_no_call_reads_a_file_that_was_not_uploaded(client, work, tmp_path, form):
    np.save(tmp_path / "secret.npy", np.zeros((6, 8, 3), np.float32))
    calls = len(work.calls)
    file = {"path": form.format(tmp_path / "secret.npy"), "meta": {"_type": "gradio.FileData"}}
    told = _generate(client, own=[file, *OWN[1:]])
    assert len(work.calls) == calls
    assert "error" in told


def test_no_call_fetches_from_the_network_of_this_machine(client, work, server):
    calls = len(work.calls)
    file = {"path": f"{server}/config", "url": f"{server}/config", "meta": {"_type": "gradio.FileData"}}
    assert "error" in _generate(client, own=[file, *OWN[1:]])
    assert len(work.calls) == calls


def test_names_of_uploads_lead_nowhere_else(client, tmp_path):
    for name in ("../../../../evil.png", f"{tmp_path}/evil.png", "a\0b.png", "é" * 300 + ".png"):
        answer = client.post("/gradio_api/upload", files={"files": (name, _png())})
        assert answer.status_code != 200 or "/explore_" in answer.json()[0]
    assert list(tmp_path.iterdir()) == []


def test_huge_uploads_are_refused(client):
    answer = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(200_000))})
    assert answer.status_code >= 400


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.png", _png(9, 9), "a.png has 9 x 9 pixels; modality 'photo' takes 8 x 6"),
        ("a.png", b"no picture", "a.png cannot be read as an image"),
        ("a.png", b"", "a.png cannot be read as an image"),
        ("a.npy", b"\x93NUMPY\x01\x00", "a.npy cannot be read"),
    ],
)
def test_wrong_files_are_told_by_their_name_alone(client, work, name, content, told):
    calls = len(work.calls)
    shown = _html(client, own=[_upload(client, name, content), *OWN[1:]])
    assert 'role="alert"' in shown
    assert told.replace("'", "&#x27;") in shown
    assert "/explore_" not in shown
    assert len(work.calls) == calls


def test_files_with_other_endings_are_refused(client, work):
    calls = len(work.calls)
    assert "error" in _generate(client, own=[_upload(client, "a.pkl", b"cos\nsystem\n"), *OWN[1:]])
    assert len(work.calls) == calls


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "third"),
        (0, {"a": 1}),
        (1, 99),
        (1, "zero"),
        (2, ["phot"]),
        (2, 7),
        (4, "../../x"),
        (5, 10**9),
        (5, None),
        (5, "many"),
        (6, -1),
        (7, 10_000),
        (8, 10**40),
    ],
)
def test_settings_that_no_page_sends_are_refused(client, work, place, value):
    calls = len(work.calls)
    told = _generate(client, [value if i == place else one for i, one in enumerate(SETTINGS)])
    assert "error" in told or 'role=\\"alert\\"' in told
    assert len(work.calls) == calls


def test_texts_are_cut_and_are_no_html(client, work):
    own = [None, None, "<img src=x onerror=alert(1)>${1+1}{{2+2}}", *OWN[3:]]
    shown = _html(client, ["first", 0, ["caption"], ["mask"], *SETTINGS[4:]], own)
    assert "<img src=x" not in shown
    _generate(client, ["first", 0, ["caption"], ["mask"], *SETTINGS[4:]], [None, None, "x" * 80_000, *OWN[3:]])
    assert all(len(own.get("caption", "")) <= 5000 for _, own in work.calls)


def test_many_clients_at_once_are_all_answered(server):
    """Each with samples or, beyond those that wait, with an error."""

    def call(number):
        with httpx.Client(base_url=server, timeout=120) as client:
            told = _generate(client, [*SETTINGS[:8], number])
        return "evaluations" in told or "error" in told or "full" in told

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        assert all(pool.map(call, range(60)))


def test_a_port_that_is_taken_is_told(server):
    port = int(server.rpartition(":")[2])
    with (
        pytest.raises(SbmError, match=f"--port={port} cannot be listened on"),
        serving.served(Work(), port=port),
    ):
        pass


def test_what_the_environment_tells_gradio_is_ignored(monkeypatch, tmp_path):
    (tmp_path / "secret.txt").write_text(SECRET)
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", str(tmp_path))
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    with serving.served(Work()) as address:
        assert "127.0.0.1" in address
        assert SECRET not in httpx.get(f"{address.rstrip('/')}/gradio_api/file={tmp_path}/secret.txt").text


SERVES = """
import signal
from sbm_jax.arguments import run
from sbm_jax.explore import main, serving
from tests.explore.explored import Work
serving.Work = lambda workdir: Work()
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored below a job in the background
run(lambda: main("explore", ["--workdir=.", "--port=0"]))
"""


@pytest.mark.slow
def test_ctrl_c_ends_it_in_one_line():
    command = [sys.executable, "-c", SERVES]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        told = process.stdout.readline()
        assert told.startswith("Explorer: http://127.0.0.1:"), process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.endswith("interrupted.\n")
    assert "Traceback" not in errors
