"""Alignment of gradients and its derivative, and how layers make a gradient: tensors and networks, no data."""
