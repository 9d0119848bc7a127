"""A short form of `tests.robustness.kill`."""

from tests.robustness import kill


def test_killed_runs_end_with_the_same_bits(tmp_path):
    assert kill.main(kills=2, seed=1, directory=tmp_path, options=[]) == []
