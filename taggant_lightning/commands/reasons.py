"""What a constructor said, behind what jsonargparse wraps around it."""


def reason(error: Exception) -> str | None:
    """Return what a constructor said when it refused its arguments, from the text that jsonargparse wraps around it.

    For an argument of several types jsonargparse lists what was wrong with each: `- Expected a <class 'NoneType'>` for the
    types that were not meant, and the constructor's own sentence. None where the text has another form.
    """
    _, found, errors = str(error).partition("Errors:\n")
    lines = [line.strip().removeprefix("- ") for line in errors.partition("Given value type:")[0].splitlines()]
    sentences = [line for line in lines if line and not line.startswith("Expected a") and not line.endswith(":")]
    return sentences[0] if found and sentences else None
