"""The closing summary of a build, for people."""

from shardstream.pipelines.job.account import account_of
from shardstream.shard_format.manifest import Manifest
from shardstream.shard_format.storage import open_directory


def describe_dataset(manifest: Manifest, where: str) -> str:
    """Returns what a dataset holds, a few lines of text."""
    totals, run, report = manifest.totals, manifest.run, manifest.report
    seconds = run.get("seconds") or 0
    rate = f", {totals['tokens_in'] / seconds / 1e6:.2f} Mtok/s" if seconds else ""
    dead = ", ".join(f"{reason} {n:,}" for reason, n in manifest.dead_letters.items())
    splits: dict[str, int] = {}
    for shard in manifest.shards:
        splits[shard.split] = splits.get(shard.split, 0) + 1
    lines = [
        f"{where}: complete, fingerprint {manifest.fingerprint[:16]}",
        f"  documents  {totals['documents_read']:,} read = {totals['documents_written']:,} "
        f"written + "
        f"{totals['documents_dropped']:,} dropped + {totals['dead_letters']:,} dead letters"
        + (f" ({dead})" if dead else ""),
        f"  tokens     {totals['tokens_in']:,} in = {totals['tokens_written']:,} written + "
        f"{totals['tokens_truncated']:,} truncated",
        f"  sequences  {totals['records']:,} of {manifest.sequence_length} tokens "
        f"({manifest.packing['packing']}, {report['padding_percent']:.2f} % padding), "
        f"{report['cut_documents']:,} documents cut",
        f"  shards     {', '.join(f'{n:,} {split}' for split, n in splits.items())}, "
        f"{totals['bytes'] / 1e6:,.1f} MB",
    ]
    if "runner" in run:
        lines.append(
            f"  run        {seconds:.1f} s{rate}, {run['runner']}, {run['engine']} "
            f"{run['engine_version']}"
        )
    return "\n".join(lines)


def describe_stream(manifest: Manifest, where: str) -> str:
    """Returns what a stream that was stopped has committed, for people."""
    shards = account_of(open_directory(where)).shards
    return (
        f"{where}: following, {len(shards):,} shards committed, "
        f"{sum(shard.documents for shard in shards):,} documents, "
        f"{sum(shard.tokens for shard in shards):,} tokens, on "
        f"{manifest.run.get('runner')}. The same command goes on from here."
    )
