"""The Fréchet distance against torchmetrics, on given features."""

import numpy as np
import pytest

from sbm_jax.evaluation import frechet

pytestmark = pytest.mark.peer


def test_distance():
    torch, fid = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.image.fid")
    generator = np.random.default_rng(0)
    real, found = (generator.normal(size=(300, 128)) @ generator.normal(size=(128, 128)) + i for i in range(2))
    peer = fid.FrechetInceptionDistance(feature=torch.nn.Identity(), input_img_size=(128,))
    peer.set_dtype(torch.float64)
    peer.update(torch.tensor(real), real=True)
    peer.update(torch.tensor(found), real=False)
    reference = frechet.gaussian(frechet.moments(real))
    assert frechet.distance(found, reference) == pytest.approx(float(peer.compute()), rel=1e-6)
