"""Linen modules: autoencoders, score networks and classifiers. `module.apply(params, ...)` is a pure function."""
