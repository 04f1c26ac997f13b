"""`shardstream inspect DIRECTORY`: what a dataset directory holds, finished or not, as text."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shardstream.pipelines.job.failures import guarded, planning
from shardstream.pipelines.job.flags import FlagParser
from shardstream.pipelines.process import set_up_process

if TYPE_CHECKING:
    from shardstream.pipelines.job.account import Account

_LABEL_WIDTH = 11
_NUMBER_WIDTH = 16
# Of the manifest's `run`: the rest counts what the tokenizer engine's audit found.
_RUN = (
    "runner",
    "seconds",
    "finished",
    "engine",
    "engine_version",
    "shuffle_via",
    "threads",
    "code_version",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 where there is no dataset."""
    set_up_process()
    words = sys.argv[1:] if argv is None else argv
    return guarded("shardstream inspect", lambda: _run(words))


def _run(argv: Sequence[str]) -> int:
    parser = FlagParser(
        prog="shardstream inspect",
        description="Tells what a dataset directory holds, finished or not: source, tokenizer, "
        "options, what became of every document, shards, padding.",
    )
    parser.add_argument("directory", help="the --output of a build")
    where = parser.parse_args(argv).directory

    from shardstream.pipelines.job.account import account_of
    from shardstream.shard_format.storage import open_directory

    with planning():
        account = account_of(open_directory(where))
    print(describe_account(account, where))
    return 0


def describe_account(account: "Account", where: str) -> str:
    """Returns an account of a dataset directory, some twenty lines of text."""
    manifest = account.manifest
    name = f"plan {manifest.plan_fingerprint[:16]}"
    if manifest.status == "complete":
        name = f"fingerprint {manifest.fingerprint[:16]}"
    lines = [f"{where}: {manifest.status}, {manifest.mode} mode, {name}"]
    rows = [
        ("source", _source(manifest.source)),
        ("tokenizer", _tokenizer(manifest.tokenizer)),
        ("packing", _pairs(manifest.packing)),
        ("options", _pairs({"seed": manifest.seed} | dict(manifest.options))),
        *_documents(account),
        *_tokens(account),
        *_shards(account),
        ("padding", _padding(account)),
    ]
    run = {name: manifest.run[name] for name in _RUN if name in manifest.run}
    if run:
        rows.append(("run", _pairs(run)))
    for label, text in rows:
        lines.append(f"  {label:{_LABEL_WIDTH}}{text}".rstrip())
    return "\n".join(lines)


def _source(source: Mapping[str, Any]) -> str:
    column = source.get("text_template") or source.get("text_column")
    skipped, taken = source.get("skip_documents"), source.get("max_documents")
    parts = [
        " ".join(filter(None, (source["dataset"], source["config"], source["split"]))),
        f"commit {source['commit'][:12]}" if source.get("commit") else "files as they appear",
        f"{source['num_files']:,} files" if "num_files" in source else "",
        f"format {source['format']}",
        f"text {column!r}",
        f"after the first {skipped:,} documents" if skipped else "",
        f"at most {taken:,} documents" if taken is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _tokenizer(tokenizer: Mapping[str, Any]) -> str:
    return (
        f"{tokenizer['vocab_size']:,} ids as {tokenizer['token_dtype']}, fingerprint "
        f"{tokenizer['fingerprint'][:12]}, "
        + _pairs({k: v for k, v in tokenizer.items() if k.endswith("_id") or "add_" in k})
    )


def _documents(account: "Account") -> list[tuple[str, str]]:
    """Returns the rows of what became of the documents, from read to written."""
    totals = account.totals
    so_far = "" if account.manifest.status == "complete" else ", so far"
    rows = [("documents", _number(totals.get("documents_read"), f"read{so_far}"))]
    rows.append(("", _number(totals.get("documents_dropped"), "dropped as longer than a sequence")))
    rows += [("", _number(n, f"dead: {reason}")) for reason, n in account.dead_letters.items()]
    if not account.dead_letters:
        rows.append(("", _number(totals.get("dead_letters"), "dead")))
    rows.append(("", _number(totals.get("documents_written"), f"written{so_far}")))
    return rows


def _tokens(account: "Account") -> list[tuple[str, str]]:
    totals = account.totals
    return [
        ("tokens", _number(totals.get("tokens_in"), "in")),
        ("", _number(totals.get("tokens_truncated"), "truncated")),
        ("", _number(totals.get("tokens_written"), "written")),
    ]


def _shards(account: "Account") -> list[tuple[str, str]]:
    shards = account.shards
    expected = account.expected_shards
    splits = Counter(shard.split for shard in shards)
    of_splits = ", ".join(f"{split} {count:,}" for split, count in splits.items())
    told = f"of {expected:,} finished" if expected not in (None, len(shards)) else "finished"
    rows = [("shards", _number(len(shards), told + (f": {of_splits}" if shards else "")))]
    if shards:
        sizes = sorted(shard.bytes for shard in shards)
        rows += [
            ("", _number(sum(sizes), f"bytes, {sizes[0]:,} to {sizes[-1]:,} a shard")),
            ("", _number(sum(shard.records for shard in shards), "sequences")),
        ]
    return rows


def _padding(account: "Account") -> str:
    report = account.report
    if not report.sequences:
        return "no sequence is written yet"
    lengths = ", ".join(f"p{p} {report.length_percentile(p):,}" for p in (50, 90, 99))
    return (
        f"{report.padding_percent:.2f} % of the positions, {report.cut_documents:,} documents cut, "
        f"{report.empty_documents:,} empty; lengths {lengths}, longest {report.longest_document:,}"
    )


def _number(value: int | None, text: str) -> str:
    number = "not known yet" if value is None else f"{value:,}"
    return f"{number:>{_NUMBER_WIDTH}} {text}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in values.items())


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == [] else str(value)


if __name__ == "__main__":
    sys.exit(main())
