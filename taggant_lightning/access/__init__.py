"""Black boxes: images go in, an Answer a query comes out."""
