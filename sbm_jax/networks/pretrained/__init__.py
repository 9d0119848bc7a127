"""Pretrained networks: architectures in Linen, with weights from safetensors files."""
