"""Parts that turn the maps of a plain ViT into dense predictions, in pure PyTorch."""
