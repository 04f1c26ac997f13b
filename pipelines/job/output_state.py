"""What is in the output directory already, and what that means for a build."""

import enum

from shardstream.shard_format import naming
from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.manifest import Manifest, find_manifest
from shardstream.shard_format.storage import Directory
from shardstream.transforms.batch.build_shard import forget_lost_shards
from shardstream.transforms.plan import BuildPlan


class OutputState(enum.Enum):
    """What to do about the output directory."""

    START = "nothing is there"
    CONTINUE = "the same plan was interrupted"
    DONE = "the same plan is complete"


def prepare_output(plan: BuildPlan, *, overwrite: bool) -> OutputState:
    """Readies the output directory and returns what it was found to hold.

    Raises:
        OptionError: it holds another dataset, or files that are no dataset's.
    """
    directory = plan.directory
    if overwrite:
        for name in _dataset_files(plan):
            directory.remove(name)
    manifest = find_manifest(directory)
    if manifest is None:
        strangers = [name for name in directory.list(recursive=False) if _is_shard(name)]
        if strangers:
            raise OptionError(
                f"--output {directory}: has shards ({strangers[0]}, ...) but no {naming.MANIFEST}. "
                "Choose an empty directory, or pass --overwrite to remove them."
            )
        state = OutputState.START
    elif manifest.plan_fingerprint != plan.fingerprint:
        raise OptionError(
            f"--output {directory}: holds {_article(manifest.status)} dataset of another plan "
            f"({_first_difference(plan.manifest(), manifest)}). Choose another directory, or pass "
            "--overwrite to replace it."
        )
    elif manifest.status == "complete":
        return OutputState.DONE
    else:
        state = OutputState.CONTINUE
        _say_lost(directory, forget_lost_shards(plan))
    directory.remove_private()
    directory.write(naming.MANIFEST, plan.manifest().to_json())
    return state


def remove_work(plan: BuildPlan) -> None:
    """Removes the temporary files of a finished build."""
    plan.directory.remove(naming.WORK_DIRECTORY)


def _say_lost(directory: Directory, lost: list[str]) -> None:
    if lost:
        print(
            f"{directory}: {len(lost)} shards that were finished are missing or not whole "
            f"({lost[0]}, ...); everything is read again to make them."
        )


def _dataset_files(plan: BuildPlan) -> list[str]:
    """Returns what a dataset consists of; anything else in the directory is the user's."""
    return [
        naming.MANIFEST,
        *filter(_is_shard, plan.directory.list(recursive=False)),
        naming.CARD,
        naming.PROVENANCE_DIRECTORY,
        naming.CHECKSUMS_DIRECTORY,
        naming.DEAD_LETTERS_DIRECTORY,
        naming.COMMITS_DIRECTORY,
        naming.TOKENIZER_DIRECTORY,
        naming.WORK_DIRECTORY,
    ]


def _is_shard(name: str) -> bool:
    return name.endswith(".array_record")


def _first_difference(ours: Manifest, theirs: Manifest) -> str:
    """Names the option in which two plans differ, for the error message."""
    for section in ("source", "tokenizer", "packing", "options"):
        mine, other = dict(getattr(ours, section)), dict(getattr(theirs, section))
        for name in mine | other:
            if mine.get(name) != other.get(name):
                return f"{section} {name}: {other.get(name)} there, {mine.get(name)} now"
    return f"seed: {theirs.seed} there, {ours.seed} now"


def _article(status: str) -> str:
    return f"an {status}" if status[0] in "aeiou" else f"a {status}"
