#!/usr/bin/env bash
# Proves that the committed stubs are what the protos give.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/protos.sh "$fresh/gen" 2>/dev/null
diff -r --exclude=__pycache__ protos/gen "$fresh/gen" >/dev/null || { echo "The committed stubs are not current: run 'make protos'." >&2; exit 1; }
echo "Stubs are current."
