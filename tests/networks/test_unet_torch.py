"""The UNet and the transformer compute what the same layers do in PyTorch, with the same weights."""

import dataclasses

import jax
import pytest

from benchmarks import sampling_cases

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

pytest.importorskip("torch")
pytest.importorskip("diffusers")

MODALITIES = 3


@pytest.mark.parametrize(
    ("network", "changes"),
    [("unet:24", {}), ("unet:24:plain", {"mask_channels": False, "time_scale": 1.0}), ("transformer:64x2", {})],
)
def test_outputs_agree(network, changes):
    from benchmarks import torch_networks, torch_peers

    model = sampling_cases.make_model(network)
    model = dataclasses.replace(model, network=model.network.clone(**changes))
    params = sampling_cases.make_params(model, MODALITIES)
    module = torch_networks.counterpart(model.network, params, MODALITIES, sampling_cases.LATENT_SIZE)
    assert torch_peers.output_difference(model, params, module, MODALITIES) < torch_peers.TOLERANCE

    changed = jax.tree.map(lambda leaf: 1.05 * leaf, params)
    assert torch_peers.output_difference(model, changed, module, MODALITIES) > 1e-3


def test_a_network_without_counterpart_is_an_error():
    from benchmarks import torch_networks
    from sbm_jax.errors import SbmError

    with pytest.raises(SbmError, match="ResidualMLP is not written in PyTorch here; compare one of UNet"):
        torch_networks.counterpart(sampling_cases.make_model("mlp:8").network, {}, MODALITIES, 64)


@pytest.mark.parametrize("name", ["predictor_corrector", "dpm_solver_pp_2m"])
def test_peers_hold_what_is_observed_and_sample_the_rest(name):
    import torch

    from benchmarks import torch_samplers

    calls = []

    def normal_score(z, t, observed):
        """The score, and the velocity at small times, of independent standard normal latents."""
        calls.append(t)
        assert t.shape == z.shape[:1]
        return -z if name == "predictor_corrector" else 0.0 * z

    torch.manual_seed(0)
    z, observed = torch.full((512, 2, 4), 7.0), torch.tensor([[True, False]]).expand(512, 2)
    samples = getattr(torch_samplers, name)(normal_score, z, observed, 20)
    assert len(calls) == (40 if name == "predictor_corrector" else 20)
    assert torch.all(samples[:, 0] == 7.0)
    assert samples[:, 1].std() == pytest.approx(1.0, abs=0.1)
