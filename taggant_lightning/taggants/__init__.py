"""Data taggants: keys, alignment, signing and detection."""
