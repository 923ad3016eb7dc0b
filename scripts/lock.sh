#!/usr/bin/env bash
# Pins every dependency with its hashes, for all platforms and Pythons, without any address. The images' are a part of
# what the tests run with: the same versions as in dev.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

pin() { # pin OUTPUT SOURCE OPTION...
  .venv/bin/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
    --no-annotate --quiet "${@:3}" "$2" -o "requirements/$1.txt"
}

pin bootstrap requirements/bootstrap.in
pin dev requirements/dev.in
pin s3 requirements/s3.in
for name in build deploy; do
  pin "$name" "requirements/$name.in" --constraint requirements/dev.txt
done
for service in gateway generator storage web; do
  .venv/bin/python scripts/image_requirements.py "$service" | pin "$service" - --constraint requirements/dev.txt
done
