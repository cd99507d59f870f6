"""Training parts that need nothing but PyTorch."""
