"""Models: the LightningModule around any timm model, and very small ones for CPU work."""
