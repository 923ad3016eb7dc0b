#!/usr/bin/env bash
# Pins every dependency with its hashes, for all platforms and Pythons, without any address.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in bootstrap dev; do
  .venv/bin/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
    --no-annotate --quiet "requirements/$name.in" -o "requirements/$name.txt"
done
