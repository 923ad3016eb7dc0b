#!/usr/bin/env bash
# Makes .venv with everything in it: pinned, hashed requirements, then all members of this repository.
set -euo pipefail
cd "$(dirname "$0")/.."

python=""
for candidate in python3.13 python3.12 python3.11 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
source scripts/apt.sh
if [ -z "$python" ]; then
  apt_or_say "Python 3.11 or newer" python3 python3-venv
  python=python3
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this machine has $("$python" --version)." >&2; exit 1; }
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  apt_or_say "the Python module venv" python3-venv
fi

rm -f .venv/.ready
[ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || { rm -rf .venv; "$python" -m venv .venv; }
echo "Installing into .venv (about a minute the first time) ..." >&2
export PIP_DISABLE_PIP_VERSION_CHECK=1
.venv/bin/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
.venv/bin/uv pip install --quiet --system-certs --compile-bytecode --python .venv/bin/python --require-hashes -r requirements/dev.txt
members=()
for folder in protos services/* clients/*; do
  [ -f "$folder/pyproject.toml" ] && members+=(-e "$folder")
done
.venv/bin/uv pip install --quiet --system-certs --python .venv/bin/python --no-deps --no-build-isolation "${members[@]}"
# The S3 server of the tests, and the command of the recipes for buckets, are programs of their own, like PostgreSQL and
# Redis: what they need (an older dateutil, boto)
# must not choose what the product runs with.
.venv/bin/uv pip install --quiet --system-certs --python .venv/bin/python --require-hashes --target .venv/s3 -r requirements/s3.txt
touch .venv/.ready
