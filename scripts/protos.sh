#!/usr/bin/env bash
# Generates the committed stubs into the folder given (default: protos/gen). Two passes: messages for every file, gRPC
# for services; mypy-protobuf types both.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-protos/gen}
rm -rf "$out"
mkdir -p "$out"
mapfile -t all < <(cd protos && find nanobatch -name '*.proto' | LC_ALL=C sort)
mapfile -t services < <(printf '%s\n' "${all[@]}" | grep '_service\.proto$')
export PATH="$PWD/.venv/bin:$PATH"
python -m grpc_tools.protoc -I protos --python_out="$out" --mypy_out="$out" "${all[@]}"
python -m grpc_tools.protoc -I protos --grpc_python_out="$out" --mypy_grpc_out="$out" "${services[@]}"
find "$out/nanobatch" -type d -exec touch {}/py.typed \;
