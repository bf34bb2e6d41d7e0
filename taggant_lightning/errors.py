"""The error class of the package, and its branches: the world failed, not the input; a claim was not put to the test."""


class TaggantError(ValueError):
    """A wrong input, told in one sentence: which argument, its value, why it is wrong, what to write instead.

    Commands print the message and exit with code 2; nothing is half-written when it is raised.
    """

    exit_code = 2


class Unavailable(TaggantError):  # noqa: N818 - it says what is the matter
    """The world failed, not the input: a service that stays down, though the command is right.

    Commands print the message and exit with code 1; running the same command again goes on from what was reached.
    """

    exit_code = 1


class Unasked(TaggantError):  # noqa: N818 - it says what is the matter
    """Nothing speaks against a claim, and nobody has asked the model; commands exit with code 3."""

    exit_code = 3


class Gone(TaggantError):  # noqa: N818 - it says what is the matter
    """The process that asked a stranger's model is gone: nothing more can be asked of it."""
