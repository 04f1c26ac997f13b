#!/usr/bin/env bash
# The gate: lint, format and types, which must all be clean. It sets up the environment that the
# tests use. Arguments go to `ruff check`: `./check.sh --fix` also mends what ruff can mend.
set -euo pipefail
cd "$(dirname "$0")"
. ./environment.sh pipeline,gcp,test,dev

failed=()
check() {
  echo "== $1" >&2
  "${@:2}" || failed+=("$1")
}
types() {  # pyright finds the rooms by the links of typings/; its messages name the files themselves
  PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright --warnings --pythonpath .venv/bin/python |
    sed "s#$PWD/typings/shardstream/##"
}
check "ruff check" .venv/bin/ruff check --output-format concise "$@" .
check "ruff format" .venv/bin/ruff format --check .
check "pyright" types
if [ ${#failed[@]} -gt 0 ]; then
  echo "Not clean: ${failed[*]}." >&2
  exit 1
fi
