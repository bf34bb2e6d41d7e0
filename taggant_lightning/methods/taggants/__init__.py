"""Data taggants: secret keys, the images that are signed with them, and what is asked of a suspect."""
