"""Short and long forms of `tests.robustness.kill`."""

import pytest

from tests.robustness import kill

SMOKE = "--config=configs/quickstart.py:smoke"
SYSTEMS = ("sbm_vae_c", "sbm_vae_t", "sbm_vae_f", "mld", "eb_mvae", "mopoe_score", "mvtcae_mixture", "diff_mvae")
ALL_KINDS = f"--config.systems={(*SYSTEMS, 'sbm_vae_diffusion')}"


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    assert kill.main(kills=1, seed=1, directory=tmp_path, options=["--config.systems=('sbm_vae_c',)"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], [SMOKE]], ids=["tiny", "smoke"])
def test_runs_that_are_killed_twice_end_with_the_same_bits(tmp_path, options):
    assert kill.main(kills=2, seed=1, directory=tmp_path, options=options) == []


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("seed", "options"), [(0, [SMOKE]), (1, [ALL_KINDS])], ids=["smoke", "all_kinds"])
def test_runs_that_are_killed_in_all_their_parts_end_with_the_same_bits(tmp_path, seed, options):
    assert kill.main(kills=20, seed=seed, directory=tmp_path, options=options) == []
