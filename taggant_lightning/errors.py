"""The one error class of the package."""


class TaggantError(ValueError):
    """A wrong input, told in one sentence: which argument, its value, why it is wrong, what to write instead.

    Commands print the message and exit with code 2; nothing is half-written when it is raised.
    """


class Unavailable(TaggantError):  # noqa: N818  # a state of the world, not an error of the user
    """Something outside failed, not the input: commands exit with code 1, and the same command goes on where it stopped."""
