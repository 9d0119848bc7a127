import numpy as np

from sbm_jax.evaluation.metrics import diversity

RNG = np.random.default_rng(0)


def test_within_class_distance_is_the_mean_over_pairs():
    values = RNG.normal(size=(12, 3, 2)).astype(np.float32)
    labels = np.arange(12) % 2
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j and labels[i] == labels[j]]
    expected = np.mean([np.mean((values[i] - values[j]) ** 2) for i, j in pairs])
    np.testing.assert_allclose(diversity.within_class_distances({"a": values}, labels)["a"], expected, rtol=1e-5)


def test_a_label_without_a_second_example_is_left_out():
    values = RNG.normal(size=(4, 2))
    reference = diversity.within_class_distances({"a": values}, np.array([0, 0, 1, 2]))["a"]
    np.testing.assert_allclose(reference, np.mean((values[0] - values[1]) ** 2), rtol=1e-5)
    assert diversity.within_class_distances({"a": values}, np.arange(4)) == {}


def test_relative_distances_count_unobserved_modalities_only():
    observed = np.repeat([[True, False, False], [False, True, False]], 2, axis=0)
    samples = {name: np.zeros((4, 2)) for name in "abc"}
    samples["b"][0] = 2.0  # of the first pair: squared distance 4
    samples["c"][2] = 1.0  # of the second: 1
    samples["b"][2] = 9.0  # observed there
    distances = diversity.relative_distances(samples, observed, {"a": 1.0, "b": 2.0, "c": 0.5})
    np.testing.assert_allclose(distances, [4 / 2 / 2, 1 / 0.5 / 2])


def test_a_sample_that_is_not_finite_has_no_distance():
    samples = {"a": np.zeros((2, 2)), "b": np.full((2, 2), np.nan)}
    observed = np.array([[True, False]] * 2)
    assert np.isnan(diversity.relative_distances(samples, observed, {"a": 1.0, "b": 1.0})).all()


def test_a_modality_that_does_not_differ_is_left_out():
    values = np.full((6, 2), 0.1, np.float32)
    reference = diversity.within_class_distances({"a": values}, np.zeros(6, int))
    assert reference == {"a": 0.0}
    samples = {"a": RNG.normal(size=(4, 2)), "b": np.array([[0.0], [2.0], [0.0], [1.0]])}
    observed = np.array([[False, False]] * 2 + [[False, True]] * 2)
    distances = diversity.relative_distances(samples, observed, {"a": 0.0, "b": 2.0})
    np.testing.assert_allclose(distances, [2.0, np.nan])


def test_rows_that_answer_all_questions_alike_are_of_one_class():
    labels = {"digit": np.array([1, 1, 2, 1]), "colour": np.array([0, 0, 0, 5])}
    joint = diversity.joint_labels(labels)
    assert joint[0] == joint[1]
    assert len({*joint.tolist()}) == 3


def test_of_ids_the_share_of_positions_that_differ_counts():
    ids = np.array([[1, 2, 0], [1, 3, 4], [2, 2, 0], [5, 5, 5]], np.int32)
    reference = diversity.within_class_distances({"a": ids}, np.array([0, 0, 0, 1]))
    pairs = [(0, 1), (0, 2), (1, 2)]
    np.testing.assert_allclose(reference["a"], np.mean([np.mean(ids[i] != ids[j]) for i, j in pairs]))
    samples = np.array([[1, 2, 0], [1, 2, 3], [1, 1, 1], [-1, -1, -1]], np.int32)
    distances = diversity.relative_distances({"a": samples}, np.zeros((4, 1), bool), {"a": 0.5})
    np.testing.assert_allclose(distances, [2 / 3, np.nan])
