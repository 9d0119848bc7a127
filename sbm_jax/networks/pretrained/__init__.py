"""Networks that others have trained: their architectures in Linen, their weights from safetensors files."""
