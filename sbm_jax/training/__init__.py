"""The one training loop: state, optimisers, checkpoints, writers and the data-parallel mesh. Knows no model."""
