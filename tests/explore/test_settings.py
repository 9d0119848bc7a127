"""Links that restore settings, also those that nobody but a mischievous hand has written."""

import dataclasses
from urllib.parse import parse_qsl

import pytest

from sbm_jax.errors import SbmError
from sbm_jax.explore.settings import Choices, Settings, restored

CHOICES = Choices(("sbm_vae", "sbm_vae_m"), ("photo", "a b+c", "mask"), ("heun", "euler_maruyama"), num_rows=5)
DEFAULTS = Settings("sbm_vae", 0, ("photo",), ("mask",), "heun", 10, None, samples=4, seed=0)


def _restored(query):
    return restored(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)), DEFAULTS, CHOICES)


@pytest.mark.parametrize(
    "settings",
    [
        DEFAULTS,
        Settings("sbm_vae_m", 4, ("a b+c", "mask"), ("photo",), "euler_maruyama", 1000, 2.5, samples=16, seed=-3),
        Settings("sbm_vae", None, (), (), "heun", 1, 0.0, samples=1, seed=2**40),
    ],
)
def test_a_link_restores_its_settings(settings):
    assert _restored(settings.query) == (settings, [])


def test_what_a_link_leaves_out_is_the_default():
    assert _restored("?seed=7&unknown=1") == (dataclasses.replace(DEFAULTS, seed=7), [])


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("system=../../etc/passwd", "system is '../../etc/passwd'; expected one of sbm_vae, sbm_vae_m."),
        ("row=5", "row is 5; expected 0 to 4."),
        ("row=-1", "row is -1; expected 0 to 4."),
        ("row=<script>", "row is '<script>'; expected a number."),
        ("given=photo,phot", "modality is 'phot'; expected one of photo, a b+c, mask."),
        ("steps=99999999999", "steps is 99999999999; expected 1 to 1000."),
        ("samples=0", "samples is 0; expected 1 to 16."),
        ("strength=much", "strength is 'much'; expected a number."),
        ("strength=nan", "strength is nan; expected 0 or more."),
        ("strength=-1", "strength is -1.0; expected 0 or more."),
        ("seed=" + "9" * 30, "seed is 999999999999999999999999999999; expected"),
        ("solver=", "solver is ''; expected one of heun, euler_maruyama."),
    ],
)
def test_what_is_wrong_in_a_link_is_told_and_left_at_its_default(query, told):
    settings, (wrong,) = _restored(query + "&samples=2" if "samples" not in query else query)
    assert wrong.startswith(told)
    assert settings == (DEFAULTS if "samples" in query else dataclasses.replace(DEFAULTS, samples=2))


def test_long_nonsense_is_cut():
    _, (wrong,) = _restored("solver=" + "x" * 10_000)
    assert len(wrong) < 200


def test_settings_are_checked_wherever_they_come_from():
    with pytest.raises(SbmError, match="steps is 0; expected 1 to 1000"):
        CHOICES.check(dataclasses.replace(DEFAULTS, steps=0))
