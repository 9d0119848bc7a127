"""Training objectives, and the bounds of multimodal VAEs: per-row terms are available, and noise can be injected."""
