import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation.metrics import class_shares, coherence, reconstruction
from sbm_jax.evaluation.metrics.base import NO_CLASS

# Three rows, four modalities.
PREDICTED = np.array([[3, 3, 3, 3], [1, 2, 2, 2], [5, 5, 0, NO_CLASS]])
LABELS = np.array([3, 2, 5])


def test_conditional_counts_unobserved_entries_only():
    observed = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]], bool)
    np.testing.assert_allclose(coherence.conditional(PREDICTED, LABELS, observed), [1, 1 / 2, 1 / 3])


def test_conditional_is_nan_where_nothing_was_generated():
    everything = np.ones(4, bool)
    assert np.isnan(coherence.conditional(PREDICTED, LABELS, everything)).all()


def test_agreement_with_the_first_and_with_the_majority_differ():
    np.testing.assert_array_equal(coherence.agreement(PREDICTED, "first"), [4, 1, 2])
    np.testing.assert_array_equal(coherence.agreement(PREDICTED, "majority"), [4, 3, 2])
    shares = {name: outcomes.mean() for name, outcomes in coherence.unconditional(PREDICTED).items()}
    expected = {
        "2": 2 / 3,
        "3": 1 / 3,
        "4": 1 / 3,
        "all": 1 / 3,
        "majority_2": 1,
        "majority_3": 2 / 3,
        "majority_4": 1 / 3,
    }
    assert shares == pytest.approx({f"unconditional_{name}": share for name, share in expected.items()})


def test_samples_without_a_digit_do_not_agree_with_one_another():
    lost = np.full((1, 3), NO_CLASS)
    assert coherence.agreement(lost, "first") == 0
    assert coherence.agreement(lost, "majority") == 0


def test_unknown_rule_is_named():
    with pytest.raises(SbmError, match=r"'majorit'.*'majority'"):
        coherence.agreement(PREDICTED, "majorit")


def test_shares_of_classes_per_modality():
    shares = class_shares.by_modality(PREDICTED, 6)
    np.testing.assert_allclose(shares[0], [0, 1 / 3, 0, 1 / 3, 0, 1 / 3])
    np.testing.assert_allclose(shares.sum(axis=1), [1, 1, 1, 2 / 3])


def test_squared_error_is_per_element_and_per_row():
    errors = reconstruction.squared_error(np.zeros((2, 2, 2, 1)), np.full((2, 2, 2, 1), 0.5))
    np.testing.assert_allclose(errors, [0.25, 0.25])
    errors = reconstruction.squared_error(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(errors, [0.5, 0.0])


def test_the_share_of_ids_that_are_right_knows_no_padding_and_no_diverged_samples():
    x = np.array([[3, 4, 0, 0], [3, 4, 5, 6], [0, 0, 0, 0], [1, 0, 0, 0]], np.int32)
    y = np.array([[3, 5, 9, 9], [3, 4, 5, 0], [0, 0, 0, 0], [-1, -1, -1, -1]], np.int32)
    np.testing.assert_array_equal(reconstruction.token_accuracy(x, y), [0.5, 0.75, np.nan, np.nan])
