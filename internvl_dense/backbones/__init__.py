"""Vision transformers as dense backbones, in pure PyTorch."""
