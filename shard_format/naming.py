"""Names inside a dataset directory: made in this one place."""

MANIFEST = "dataset.json"
CARD = "README.md"
TOKENIZER_DIRECTORY = "tokenizer"
PROVENANCE_DIRECTORY = "provenance"
CHECKSUMS_DIRECTORY = "checksums"
DEAD_LETTERS_DIRECTORY = "dead_letters"
COMMITS_DIRECTORY = "commits"
WORK_DIRECTORY = "_work"


def shard_name(split: str, index: int, count: int | None = None) -> str:
    """Returns `train-00000-of-00064.array_record`; stream mode has no count."""
    if count is not None and not 0 <= index < count:
        raise ValueError(f"shard index is {index}, expected 0 to {count - 1}")
    total = "" if count is None else f"-of-{count:05d}"
    return f"{split}-{index:05d}{total}.array_record"


def stream_shard_name(split: str, shard_id: str) -> str:
    """Returns `train-stream-0123456789abcdef.array_record`, named by the documents it holds.

    A stream's shard is written before its place in the order is known; see shard_format.commit_log.
    """
    return f"{split}-stream-{shard_id}.array_record"


def commit_name(sequence: int) -> str:
    """Returns the path, inside the dataset directory, of one commit of a stream."""
    return f"{COMMITS_DIRECTORY}/{sequence:08d}.json"


def provenance_name(shard: str) -> str:
    """Returns the path, inside the dataset directory, of a shard's provenance."""
    return f"{PROVENANCE_DIRECTORY}/{shard.removesuffix('.array_record')}.parquet"


def checksums_name(shard: str) -> str:
    """Returns the path, inside the dataset directory, of the checksums of a shard's records."""
    return f"{CHECKSUMS_DIRECTORY}/{shard.removesuffix('.array_record')}.xxh3"


def dead_letters_name(origin: int | str) -> str:
    """Returns the path, inside the dataset directory, of dead letters.

    Args:
        origin: what the documents were read from: the index of a source file in batch mode, the
            name of a partition in stream mode.
    """
    text = f"{origin:05d}" if isinstance(origin, int) else origin
    return f"{DEAD_LETTERS_DIRECTORY}/partition-{text}.jsonl"
