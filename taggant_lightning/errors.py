"""The one error class of the package."""


class TaggantError(ValueError):
    """A wrong input, told in one sentence: which argument, its value, why it is wrong, what to write instead.

    Commands print the message and exit with code 2; nothing is half-written when it is raised.
    """
