"""Linen modules: codecs, score networks and classifiers. `module.apply(params, ...)` is a pure function."""
