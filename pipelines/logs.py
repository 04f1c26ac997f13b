"""Keeps other libraries' start-up chatter off the terminal."""

import logging
import os
import threading

_CHATTER = (
    "apitools not found",
    "bigquery client libraries",
    "Really starting",
    "Really destroying",
    "A task failed with exception",  # of a runner that raises it as well
)

# Runners log a worker's exception, with its traceback, once for every stage it passes; the one
# that ends the job is raised, and that is the one to show.
_REPEATED = (
    "apache_beam.runners.common",
    "apache_beam.runners.direct",
    "apache_beam.runners.worker",
    "apache_beam.runners.portability",
)


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if any(text in message for text in _CHATTER):
        return False
    if record.name in ("PrismRunner", "root") and "bundle" in message:
        return False
    return record.levelno < logging.ERROR or not record.name.startswith(_REPEATED)


_READER = "read_grpc_client_inputs"  # a thread of Beam's worker
_CHATTERING = ("root", "apache_beam.utils.subprocess_server")


def hide_chatter() -> bool:
    """Drops messages that Beam and transformers write while they are imported.

    Returns whether they were shown before.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    shown = _is_news not in logging.getLogger().filters
    for name in _CHATTERING:
        logging.getLogger(name).addFilter(_is_news)  # a filter that is there is not added again
    return shown


def show_chatter() -> None:
    """Shows again what `hide_chatter` hides."""
    for name in _CHATTERING:
        logging.getLogger(name).removeFilter(_is_news)


def set_up_logs(level: int = logging.WARNING) -> None:
    """Configures what a command writes to stderr: warnings and errors, a line each."""
    threading.excepthook = _tell_exception
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", force=True)
    for handler in logging.getLogger().handlers:
        # Prism's records get their level from its own log after the logger has let them through.
        handler.addFilter(lambda record: record.levelno >= level and _is_news(record))


def _tell_exception(raised: threading.ExceptHookArgs) -> None:
    """Tells of an exception in a thread, but not that Beam's reader found its runner gone."""
    if raised.thread is None or raised.thread.name != _READER:
        threading.__excepthook__(raised)


def end_logs() -> None:
    """Silences what a failed job's threads say while the runner is torn down under them.

    For the end of a process only: a caller of `main` from Python keeps its logs.
    """
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda _: None
