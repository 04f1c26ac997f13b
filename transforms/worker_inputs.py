"""What a job leaves in its output directory for its workers, so that the graph stays small.

A list of a hundred thousand files would be in the pickle of every DoFn, megabytes of it; a
tokenizer in a directory of the submitter's machine exists on no worker, and a thousand workers had
better not ask the hub for one. Both are files beside the dataset; the graph names them.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TypeVar

from shardstream.shard_format import naming
from shardstream.shard_format.storage.local_publish import publishing_folder
from shardstream.sources.options import SourceOptions
from shardstream.tokens.engines.certificates import cache_directory
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from shardstream.transforms.plan import BuildPlan

# Patterns and a few names travel with the graph, some 10 KB of it at most.
MAX_INLINE_DATA_FILES = 100

Plan = TypeVar("Plan", bound=BuildPlan)


def leave_file_list(plan: Plan) -> Plan:
    """Writes a long list of data files into the directory; returns the plan that refers to it."""
    if len(plan.source.data_files) <= MAX_INLINE_DATA_FILES:
        return plan
    name = plan.work_name("data_files.json")
    plan.directory.write(name, json.dumps(plan.source.data_files).encode())
    source = dataclasses.replace(plan.source, data_files=())
    return dataclasses.replace(plan, source=source, data_files_name=name)


def source_of(plan: BuildPlan) -> SourceOptions:
    """Returns the plan's source with all its data files."""
    if plan.data_files_name is None:
        return plan.source
    files = json.loads(plan.directory.read(plan.data_files_name))
    return dataclasses.replace(plan.source, data_files=tuple(files))


def tokenizer_of(plan: BuildPlan) -> Tokenizer:
    """Opens the plan's tokenizer on a worker.

    It is opened as it is named where that is a directory here (baked into the image, or on the
    submitter's own machine), where the output is local, or where it runs code of its own, which is
    trusted at its commit on the hub and nowhere else. Otherwise the copy is opened that the
    submitter left in the output directory.
    """
    options = plan.tokenizer
    is_local = plan.directory.local_path(naming.MANIFEST) is not None
    is_named = options.trust_remote_code or Path(options.tokenizer).expanduser().is_dir()
    if is_local or is_named:
        return open_tokenizer(options)
    copy = _copy_tokenizer(plan)
    return open_tokenizer(dataclasses.replace(options, tokenizer=str(copy), revision=None))


def _copy_tokenizer(plan: BuildPlan) -> Path:
    """Returns this machine's copy of the dataset's tokenizer, whole even if others make it too."""
    copy = cache_directory() / "tokenizers" / plan.fingerprint[:32]
    if copy.is_dir():
        return copy
    with (
        plan.directory.fetching(naming.TOKENIZER_DIRECTORY) as folder,
        publishing_folder(copy) as private,
    ):
        shutil.copytree(folder, private, dirs_exist_ok=True)
    return copy
