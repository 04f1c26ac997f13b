"""Progress comes from the marks that a build leaves on disk."""

import io
import json
from pathlib import Path

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.pipelines.job.progress import Progress
from shardstream.transforms.batch.spill import SPILLED
from tests.pipeline_runs import parquet_flags


def test_progress_counts_what_is_spilled_and_built(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--output", str(tmp_path)]
    plan = make_plan(parse_options(flags))
    progress = Progress(plan, enabled=False, stream=io.StringIO())
    assert progress._poll() == {"documents_read": 0, "tokens_in": 0}
    for name, documents, tokens in (("a", 5, 100), ("b", 7, 300)):
        counts = {"documents_read": documents, "tokens_in": tokens}
        marker = plan.work_name(SPILLED, f"{name}.json")
        plan.directory.write(marker, json.dumps({"counts": counts, "files": {}}).encode())
    plan.directory.write(plan.work_name("shards", "000000.json"), b"{}")
    assert progress._poll() == {"documents_read": 12, "tokens_in": 400}
    assert len(progress._shards) == 1
