"""Text that comes from outside, made fit to be shown: one line, no control characters, of bounded length."""


def shown(text: object, limit: int = 80) -> str:
    """Return a text as a terminal, a log or a page may show it.

    Args:
        text: Anything; its `str` is taken.
        limit: Most characters of the result.

    Returns:
        One line: white space is one space, and every other character that does not print (control, bidirectional marks,
        surrogates, unassigned) is U+FFFD. A longer text ends in `…`.
    """
    head = str(text)[: 4 * limit + 4]  # enough to fill the limit; what is dropped is never looked at
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(head.split()))
    whole = len(head) == len(str(text)) and len(line) <= limit
    return line if whole else line[: max(limit - 1, 0)] + "…"
