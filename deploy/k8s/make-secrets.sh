#!/usr/bin/env bash
# Makes the Secrets of an installation, once. They are never in a manifest, and never in a process's arguments.
#
#   deploy/k8s/make-secrets.sh            with a PostgreSQL and a Redis of yours, named by NANOBATCH_DATABASE_URL and
#                                         NANOBATCH_REDIS_URL (overlay prod), and the key of your object store in
#                                         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, unless storage gets a role
#   deploy/k8s/make-secrets.sh --trial    with those of the components postgres, redis and objects (overlay dev)
#   ... --print                           prints the manifests instead of applying them; needs no cluster
set -euo pipefail

namespace=nanobatch trial="" print=""
for argument; do
  case $argument in
    --trial) trial=yes ;;
    --print) print=yes ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
if [ -z "$trial" ] && [ -z "${NANOBATCH_DATABASE_URL:-}" -o -z "${NANOBATCH_REDIS_URL:-}" ]; then
  echo "Set NANOBATCH_DATABASE_URL (postgresql+psycopg://user:password@host:5432/database) and NANOBATCH_REDIS_URL" >&2
  echo "(redis://:password@host:6379/0), or say --trial for databases in the cluster." >&2
  exit 2
fi

umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/nanobatch" "$folder/postgres" "$folder/redis" "$folder/objects"
random() { openssl rand -hex 32 | tr -d '\n'; }
put() { cat >"$folder/$1"; }

if [ -n "$trial" ]; then
  password=$(random)
  printf '%s' "$password" | put postgres/password
  NANOBATCH_DATABASE_URL="postgresql+psycopg://nanobatch:$password@postgres:5432/nanobatch"
  password=$(random)
  printf 'bind * -::*\nsave ""\nappendonly no\nmaxmemory 128mb\nmaxmemory-policy allkeys-lru\nrequirepass %s\n' "$password" | put redis/redis.conf
  NANOBATCH_REDIS_URL="redis://:$password@redis:6379/0"
  AWS_ACCESS_KEY_ID=nanobatch AWS_SECRET_ACCESS_KEY=$(random)
  printf '%s' "$AWS_ACCESS_KEY_ID" | put objects/key-id
  printf '%s' "$AWS_SECRET_ACCESS_KEY" | put objects/secret
fi
for name in ENCRYPTION_KEY NANOBATCH_ADMIN_TOKEN NANOBATCH_SERVICE_TOKEN; do
  random | put "nanobatch/$name"
done
printf '%s' "$NANOBATCH_DATABASE_URL" | put nanobatch/NANOBATCH_DATABASE_URL
printf '%s' "$NANOBATCH_REDIS_URL" | put nanobatch/NANOBATCH_REDIS_URL
printf '%s' "${AWS_ACCESS_KEY_ID:-}" | put nanobatch/AWS_ACCESS_KEY_ID
printf '%s' "${AWS_SECRET_ACCESS_KEY:-}" | put nanobatch/AWS_SECRET_ACCESS_KEY

secret() { kubectl create secret generic "$1" --namespace "$namespace" --from-file "$folder/$1" "${@:2}"; }
names=(nanobatch ${trial:+postgres redis objects})
if [ -n "$print" ]; then
  for name in "${names[@]}"; do
    secret "$name" --dry-run=client --output yaml
    echo ---
  done
  exit
fi

kubectl apply -f "$(dirname "$0")/base/namespace.yaml" >/dev/null
for name in "${names[@]}"; do # before anything is made: a new key would lock an old database's users out
  if kubectl get secret "$name" --namespace "$namespace" >/dev/null 2>&1; then
    echo "The Secret $name is there already, and is left as it is. Without its ENCRYPTION_KEY a database cannot be used." >&2
    exit 1
  fi
done
for name in "${names[@]}"; do secret "$name"; done
echo "Keep a copy of ENCRYPTION_KEY elsewhere. The first admin's token:" >&2
echo "  kubectl get secret nanobatch -n $namespace -o jsonpath='{.data.NANOBATCH_ADMIN_TOKEN}' | base64 -d" >&2
