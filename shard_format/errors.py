"""The error that says: what was asked for is wrong, and the message says what to ask for instead.

Every room can raise it and every command recognises it, so that a mistake in an option ends in one
line, and any other ValueError, wherever a worker raised it, is never taken for one.
"""


class OptionError(ValueError):
    """An option has a value that cannot be used; the message names it and what was expected."""
