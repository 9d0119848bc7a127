"""Data whose rows have several labels: coherence, and the accuracy of the classifier, of each."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from sbm_jax import experiment
from sbm_jax.experiment_config import parse_config
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config


@pytest.mark.slow
def test_each_question_is_judged(tmp_path):
    write_data(tmp_path / "data")
    for path in (tmp_path / "data").iterdir():
        arrays = dict(np.load(path))
        np.savez(path, **arrays, **{"label.parity": arrays["label"] % 2})
    config = get_config(str(tmp_path / "data"))
    config.systems = ("sbm_vae",)
    config.evaluation.update(num_examples=8, num_unconditional=8, batch_size=8)
    config.evaluation.metrics = ConfigDict({name: {} for name in ("coherence", "classifier", "class_shares")})
    results = experiment.run(parse_config(config), tmp_path / "work")
    metrics = results["systems"]["sbm_vae"]["metrics"]
    for name in ("coherence/{}given_rest", "coherence/{}unconditional_all", "classifier/{}accuracy", "coverage/{}min"):
        assert {name.format(""), name.format("parity/")} <= metrics.keys()
    assert {"coverage/class_3", "coverage/parity/class_1"} <= metrics.keys()
    assert "coverage/parity/class_2" not in metrics
    assert "classifier" in results["seconds"]
    assert {"coverage/real/class_3", "coverage/parity/real/class_1"} <= results["data"]["metrics"].keys()
    assert "Coherence of further questions" in (tmp_path / "work" / "report" / "index.html").read_text()
