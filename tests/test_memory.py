"""What memory is left, in a container too."""

import psutil
import pytest

from sbm_jax import memory
from sbm_jax.errors import SbmError


@pytest.fixture
def container(tmp_path, monkeypatch):
    def limit(**files):
        for name, text in files.items():
            (tmp_path / f"memory.{name}").write_text(text)
        monkeypatch.setattr(memory, "CGROUP", tmp_path)
        monkeypatch.setattr(memory.jax, "local_device_count", lambda: 2)
        return memory.available()

    return limit


def test_devices_share_what_a_container_has_left(container):
    assert container(max="3000\n", current="1000\n") == 1000


def test_cached_files_count_as_free(container):
    """The kernel gives them back where memory is wanted."""
    assert container(max="3000\n", current="2900\n", stat="anon 5\ninactive_file 1900\n") == 1000


def test_without_a_limit_the_host_is_the_limit(container):
    assert container(max="max\n", current="1000\n") == pytest.approx(psutil.virtual_memory().available / 2, rel=0.2)


def test_what_does_not_fit_is_told_in_bytes(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2.5e9)
    memory.require_fits("this", 2.4e9, "Take less.")
    with pytest.raises(SbmError, match=r"this needs 3.0 GB of memory, but only 2.5 GB is left. Take less."):
        memory.require_fits("this", 3e9, "Take less.")
