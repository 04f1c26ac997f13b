# Sourced by check.sh, run_local.sh and run_tests.sh: makes .venv from setup.py's extras and
# constraints.txt, once, and again when either changes; builds Prism where Go is installed and no
# binary is there yet.
# Usage: . ./environment.sh EXTRAS      e.g. pipeline,test

unset PYTHONDONTWRITEBYTECODE  # without .pyc files every worker takes 5 s to import Beam
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-true}
python=${PYTHON:-python3}
stamp="$(cat setup.py constraints.txt | cksum) $("$python" --version)"
missing=
for extra in ${1//,/ }; do  # .venv/installed has a line for each extra that was installed
  grep -qsxF "$extra $stamp" .venv/installed || missing="$missing $extra"
done
if [ -n "$missing" ]; then
  echo "Setting up .venv with [$1] ..." >&2
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$1]"
  for extra in $missing; do echo "$extra $stamp" >> .venv/installed; done
fi
if ! command -v prism >/dev/null && [ ! -x "$(go env GOPATH 2>/dev/null)/bin/prism" ] && command -v go >/dev/null; then
  echo "Building Beam's Prism runner ..." >&2
  go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0 ||
    echo "Prism was not built; DirectRunner falls back to FnApiRunner." >&2
fi
