"""How a stream is shuffled and cut into shards: the options of `--mode stream`."""

import dataclasses

from shardstream.shard_format.errors import OptionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamModeOptions:
    """How a stream is shuffled and cut into shards; nothing of it matters in batch mode.

    Attributes:
        buffer_documents: documents that the shuffle buffer holds.
        buffer_mb: megabytes of tokens that the shuffle buffer holds at most.
        shard_records: sequences in a shard; by default a quarter of the buffer.
        max_shard_latency_secs: seconds that documents wait at most for a shard to fill up.
        epochs: passes over the source, each in another order; 0: until stopped. More than one
            needs a local runner, since an engine keeps no order between passes.
        follow_source: go on with new files as they appear, until SIGTERM.
        poll_secs: seconds between looks for new files.
        lanes: buffers side by side, for runners that spread them over workers.
    """

    buffer_documents: int = 100_000
    buffer_mb: int = 256
    shard_records: int | None = None
    max_shard_latency_secs: float = 60.0
    epochs: int = 1
    follow_source: bool = False
    poll_secs: float = 30.0
    lanes: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (
            ("buffer_documents", self.buffer_documents, 2),
            ("buffer_mb", self.buffer_mb, 1),
            ("shard_records", self.shard_records, 1),
            ("epochs", self.epochs, 0),
            ("lanes", self.lanes, 1),
        ):
            if value is not None and value < least:
                raise OptionError(f"--{name} is {value}, expected at least {least}")
        for name, secs in (
            ("max_shard_latency_secs", self.max_shard_latency_secs),
            ("poll_secs", self.poll_secs),
        ):
            if not 0 < secs <= 7 * 86400:
                raise OptionError(f"--{name} is {secs}, expected more than 0, at most a week")
        if self.follow_source and self.epochs != 1:
            raise OptionError(
                f"--epochs is {self.epochs} with --follow_source, expected 1: a source that grows "
                "has no end to start again from."
            )
