#!/usr/bin/env bash
# Runs the main job on this machine. Without flags: on the embedded sample (the standard library's own
# documentation), verified, with three batches printed. With flags: `shardstream build`.
#   ./run_local.sh
#   ./run_local.sh --dataset HuggingFaceFW/fineweb-edu --config sample-10BT --tokenizer gpt2 \
#       --max_documents 10000 --output out/
set -euo pipefail
cd "$(dirname "$0")"
. ./environment.sh pipeline
if [ $# -gt 0 ]; then
  exec .venv/bin/python -m shardstream build "$@"
fi
sample=out/sample_source
dataset=out/sample
.venv/bin/python -m shardstream sample "$sample"
.venv/bin/python -m shardstream build --dataset "$sample/data" --tokenizer "$sample/tokenizer" \
  --sequence_length 512 --num_shards 4 --output "$dataset" --overwrite
.venv/bin/python -m shardstream verify "$dataset"
.venv/bin/python -m shardstream show "$dataset" --num_batches 3
.venv/bin/python -m shardstream inspect "$dataset"
