"""Images by index, the DataModules around them, and what a signature changes in them."""
