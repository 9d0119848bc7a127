"""Score-based multimodal autoencoders in JAX: any modality from any others."""

__version__ = "0.1.0"
