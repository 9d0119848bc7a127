"""The model-agnostic training loop and stage runner: state, optimisers, checkpoints and metric writers."""
