"""Experiments as graphs of commands: each command runs once, and what is finished is found again."""
