#!/usr/bin/env bash
# Hold every step of the page against axe-core, which comes from npm into a folder of this run alone: neither the product
# nor its tests need it. AXE_VERSION chooses another one.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error "axe-core@${AXE_VERSION:-4.14.1}" >/dev/null
PYTHONPATH=tests .venv/bin/python -m axe "$folder/node_modules/axe-core/axe.min.js"
