"""Ways to mark a dataset and to find the mark in a model, a room each."""
