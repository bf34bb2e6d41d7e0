"""Models in files as black boxes, without running what a stranger may have put into them."""
