"""What every worker of a build must know, decided once before the job starts.

A plan is small, frozen and picklable: it travels inside DoFns. Everything the output depends on is
in `identity`, whose hash names the plan; how the work is done (threads, partition size, spill
files) is beside it, because it must not matter.
"""

import dataclasses
from typing import Any

import numpy as np

from shardstream.shard_format import keys, naming
from shardstream.shard_format.manifest import SCHEMA_VERSION, Manifest, fingerprint_of
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.shard_format.storage import Directory, open_directory
from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import DEFAULT_PARTITION_BYTES
from shardstream.sources.resolve import ReadSpec
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.packing.pack import PackingOptions

TRAIN, VALIDATION = "train", "validation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """What the plan and the manifest say about the tokenizer."""

    fingerprint: str
    vocab_size: int
    token_dtype: str
    bos_id: int | None
    eos_id: int | None
    pad_id: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """One build of one dataset.

    Attributes:
        source: with its revision pinned.
        source_identity: what determines the documents, see sources.resolve.Source.identity.
        read_spec: how workers read the files.
        tokenizer: how to open it on a worker.
        tokenizer_facts: what it must turn out to be there.
        packing: how documents become sequences.
        shard_options: how ArrayRecord stores them.
        seed: of the shuffle.
        num_shards: of the train split.
        validation_fraction: of documents, 0 for no validation split.
        num_validation_shards: 0 where there is no validation split.
        output: the dataset directory.
        shuffle_via: "files" (blocks wait in temporary files, whose names travel) or "engine".
        max_dead_letter_fraction: of documents read, above which the job stops.
        partition_bytes: text per unit of reading.
        block_bytes: text per tokenizer call.
        threads: of a worker process.
        processes: that a local runner's work is divided between; 1 keeps it in the runner's own.
        data_files_name: file of the directory that holds a long list of data files, None where
            the source has them all; see transforms.worker_inputs.
        hub_token_secret: name of the secret from which workers take the hub's token.
    """

    source: SourceOptions
    source_identity: dict[str, Any]
    read_spec: ReadSpec
    tokenizer: TokenizerOptions
    tokenizer_facts: TokenizerFacts
    packing: PackingOptions
    shard_options: ShardOptions
    seed: int
    num_shards: int
    validation_fraction: float
    num_validation_shards: int
    output: str
    shuffle_via: str
    max_dead_letter_fraction: float
    partition_bytes: int = DEFAULT_PARTITION_BYTES
    block_bytes: int
    threads: int
    processes: int = 1
    data_files_name: str | None = None
    hub_token_secret: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the output's bytes depend on."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source_identity,
            "tokenizer": self.tokenizer_record,
            "packing": self.packing_record,
            "seed": self.seed,
            "options": self.options_record,
        }

    @property
    def tokenizer_record(self) -> dict[str, Any]:
        """The manifest's `tokenizer`: facts and options, not the engine, which must not matter."""
        return dataclasses.asdict(self.tokenizer_facts) | {
            "add_bos": self.tokenizer.add_bos,
            "add_eos": self.tokenizer.add_eos,
            "special_tokens_in_text": self.tokenizer.special_tokens_in_text,
        }

    @property
    def packing_record(self) -> dict[str, Any]:
        """The manifest's `packing`."""
        return dataclasses.asdict(self.packing) | {"truncation": self.packing.truncation_rule}

    @property
    def options_record(self) -> dict[str, Any]:
        """The manifest's `options`."""
        return {
            "num_shards": self.num_shards,
            "validation_fraction": self.validation_fraction,
            "num_validation_shards": self.num_validation_shards,
            **dataclasses.asdict(self.shard_options),
        }

    @property
    def fingerprint(self) -> str:
        """Names the plan: equal plans give equal bytes."""
        return fingerprint_of(self.identity)

    @property
    def directory(self) -> Directory:
        """The dataset directory."""
        return open_directory(self.output)

    @property
    def num_buckets(self) -> int:
        """Shards of all splits together."""
        return self.num_shards + self.num_validation_shards

    def work_name(self, *names: str) -> str:
        """Returns the name of a file of this plan's unfinished work."""
        return "/".join((naming.WORK_DIRECTORY, self.fingerprint[:16], *names))

    def shard_of(self, bucket: int) -> tuple[str, int, str]:
        """Returns (split, index in the split, file name) of a bucket."""
        if bucket < self.num_shards:
            split, index, count = TRAIN, bucket, self.num_shards
        else:
            split, index = VALIDATION, bucket - self.num_shards
            count = self.num_validation_shards
        return split, index, naming.shard_name(split, index, count)

    def buckets_of(self, file_index: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns int64[n], the bucket each document ends in."""
        return keys.assign_buckets(
            file_index,
            row,
            seed=self.seed,
            num_shards=self.num_shards,
            num_validation_shards=self.num_validation_shards,
            validation_fraction=self.validation_fraction,
        )

    def manifest(self, **changes: Any) -> Manifest:  # noqa: ANN401  (as Manifest's fields)
        """Returns the plan's manifest, incomplete unless changes say otherwise."""
        return Manifest(
            **{
                "status": "incomplete",
                "sequence_length": self.packing.sequence_length,
                "token_dtype": self.tokenizer_facts.token_dtype,
                "pad_id": self.tokenizer_facts.pad_id,
                "packing": self.packing_record,
                "tokenizer": self.tokenizer_record,
                "source": self.source_identity,
                "seed": self.seed,
                "options": self.options_record,
                "plan_fingerprint": self.fingerprint,
            }
            | changes
        )
