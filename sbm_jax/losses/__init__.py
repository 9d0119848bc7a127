"""Training objectives and the bounds of multimodal VAEs, with per-row terms and injectable noise."""
