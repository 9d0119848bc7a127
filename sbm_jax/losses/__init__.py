"""Training objectives. Per-row terms are available before they are averaged, and noise can be injected."""
