"""The error that a job raises on purpose; it can be found inside whatever a runner makes of it."""

import re


class JobError(Exception):
    """The job can't go on, and its message tells the user why and what to do."""


def job_error_message(error: BaseException) -> str | None:
    """Returns the message of a JobError inside what a runner raised, None where there is none."""
    if isinstance(error, JobError):
        return str(error)
    match = re.search(r"JobError: (.*?)(?: \[while running|\\n|\n|$)", str(error))
    return match[1] if match else None
