"""Keeps the documents that could not become tokens: counted, limited, written with the reason."""

import json
from collections import Counter
from collections.abc import Iterable

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsList

from shardstream.shard_format import naming
from shardstream.sources.read import DeadLetter
from shardstream.transforms.errors import JobError
from shardstream.transforms.plan import BuildPlan


class WriteDeadLetters(beam.PTransform):
    """Writes dead letters, a JSON line each, one file for every source file that has some.

    Input: PCollection[(file index, [DeadLetter])].
    Output: PCollection[(file name, number of dead letters)].
    Guarantees: lines in the order of the source; idempotent.
    """

    def __init__(self, plan: BuildPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(
        self, letters: beam.PCollection[tuple[int, list[DeadLetter]]]
    ) -> beam.PCollection[tuple[str, int]]:
        """Wires the grouping and the writing."""
        counts: beam.PCollection[tuple[str, int]] = (
            letters
            | "GroupByFile" >> beam.GroupByKey()  # (file index, [[dead letter]])
            | "WriteLines" >> beam.Map(_write_dead_letters, plan=self._plan)  # (name, count)
        )
        return counts


def _write_dead_letters(
    group: tuple[int, Iterable[list[DeadLetter]]], *, plan: BuildPlan
) -> tuple[str, int]:
    file_index, groups = group
    letters = sorted((letter for items in groups for letter in items), key=lambda item: item.row)
    name = naming.dead_letters_name(file_index)
    lines = (json.dumps(letter.as_dict(), ensure_ascii=False) for letter in letters)
    plan.directory.write(name, "".join(f"{line}\n" for line in lines).encode())
    return name, sum(letter.num_rows for letter in letters)


class SumCounts(beam.PTransform):
    """Adds up the counts of all partitions and stops the job where too many documents are dead.

    Input: PCollection[dict[str, int]].
    Output: PCollection of one dict[str, int].

    Args:
        plan: of the build.
        dead_letter_files: output of WriteDeadLetters. The check waits for it, so that a job that
            it stops leaves the dead letters to look at.
    """

    def __init__(
        self, plan: BuildPlan, dead_letter_files: beam.PCollection[tuple[str, int]]
    ) -> None:
        super().__init__()
        self._plan = plan
        self._dead_letter_files = dead_letter_files

    def expand(self, counts: beam.PCollection[dict[str, int]]) -> beam.PCollection[dict[str, int]]:
        """Wires the sum and the check."""
        # One dict for each partition is little to add up in one place. A CombineGlobally would be
        # eight steps more, and a local runner spends a short job's start on building steps.
        return (
            counts.pipeline
            | "Once" >> beam.Impulse()  # bytes, one
            | "AddAndCheck"
            >> beam.Map(
                _add_and_check,
                AsIter(counts),
                AsList(self._dead_letter_files),
                plan=self._plan,
            )  # counts
        )


def _add_and_check(
    _: bytes, counts: Iterable[dict[str, int]], _files: list, *, plan: BuildPlan
) -> dict[str, int]:
    total: Counter[str] = Counter()
    for item in counts:
        total.update(item)
    return check_dead_letters(dict(total), plan=plan)


def dead_letter_counts(counts: dict[str, int]) -> dict[str, int]:
    """Returns the number of dead letters by reason."""
    prefix = "dead_letters/"
    found = {k.removeprefix(prefix): n for k, n in counts.items() if k.startswith(prefix)}
    return dict(sorted(found.items()))


def check_dead_letters(counts: dict[str, int], *, plan: BuildPlan) -> dict[str, int]:
    """Returns counts unchanged.

    Raises:
        JobError: no document at all, or too many dead ones.
    """
    read = counts.get("documents_read", 0)
    if read == 0:
        raise JobError(
            "no documents at all: the source's files hold no row in the window asked for. Check "
            "--split, --skip_documents and --data_files."
        )
    by_reason = dead_letter_counts(counts)
    dead = sum(by_reason.values())
    if dead > plan.max_dead_letter_fraction * read:
        reasons = ", ".join(f"{reason} {n}" for reason, n in by_reason.items())
        raise JobError(
            f"{dead} of {read} documents are dead letters ({reasons}), more than "
            f"--max_dead_letter_fraction {plan.max_dead_letter_fraction} allows. See "
            f"{plan.directory.where(naming.DEAD_LETTERS_DIRECTORY)}; mend the source, choose "
            f"another "
            "--text_column, or raise the fraction."
        )
    return counts
