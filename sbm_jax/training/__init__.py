"""The one training loop, and the walk over stages: state, optimisers, checkpoints and writers. Knows no model."""
