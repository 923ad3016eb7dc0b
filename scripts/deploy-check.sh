#!/usr/bin/env bash
# Renders every overlay, holds it strictly against the schema of Kubernetes, then against the code, and evaluates
# its alerts and queries (tests/deploy).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

if command -v kubectl >/dev/null; then
  render=(kubectl kustomize)
elif command -v kustomize >/dev/null; then
  render=(kustomize build)
else
  echo "make deploy-check needs kubectl or kustomize to render the overlays, and found neither." >&2
  exit 1
fi

command -v promtool >/dev/null || programs_or_say prometheus "promtool (to evaluate alerts and queries)" prometheus

# The schemas weigh 100 MB: they come when they are needed first, not with every setup.
if ! cmp -s requirements/deploy.txt .venv/.deploy; then
  .venv/bin/uv pip install --quiet --system-certs --python .venv/bin/python --require-hashes -r requirements/deploy.txt
  cp requirements/deploy.txt .venv/.deploy
fi

# The oldest Kubernetes that the docs promise, and the newest that there is a schema of.
oldest=$(sed -n 's/.*It needs Kubernetes \([0-9.]*\) or newer.*/\1/p' docs/kubernetes.md)
newest=$(.venv/bin/python -c 'import kubernetes_validate; print(kubernetes_validate.latest_version())')
[ -n "$oldest" ] || { echo "docs/kubernetes.md does not say which Kubernetes it needs." >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for overlay in deploy/k8s/overlays/*/; do
  name=$(basename "$overlay")
  "${render[@]}" "$overlay" >"$folder/$name.yaml"
  for version in "$oldest" "$newest"; do
    .venv/bin/kubernetes-validate --kubernetes-version "$version" --strict --quiet "$folder/$name.yaml"
  done
  echo "$name: $(grep -c '^kind: ' "$folder/$name.yaml") objects, valid for Kubernetes $oldest and $newest"
done
.venv/bin/python -m pytest -q tests/deploy "$@"
