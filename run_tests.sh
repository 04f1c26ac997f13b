#!/usr/bin/env bash
# Runs the tests in an environment of their own; arguments go to pytest (e.g. -m slow, -k loader).
set -euo pipefail
cd "$(dirname "$0")"
. ./environment.sh pipeline,gcp,test
exec .venv/bin/python -m pytest "$@"
