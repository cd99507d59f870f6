"""Kernels behind one signature each; every file says when its kernel is not usable."""
