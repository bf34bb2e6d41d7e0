"""One file a command. Each has `run(words)`, where words begin with the command's name."""
