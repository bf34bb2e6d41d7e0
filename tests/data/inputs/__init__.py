"""Kinds of input that people have, each with what happens to it: made here, read by test_inputs, listed in docs/inputs.md."""
