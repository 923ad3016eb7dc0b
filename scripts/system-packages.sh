#!/usr/bin/env bash
# What the tests need besides Python: a PostgreSQL server (15 or newer) to start private copies of.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh
if ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
  # Debian's package starts a server of its own otherwise; the tests want the programs only.
  if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  fi
  apt_or_say "PostgreSQL 15 or newer (for the tests)" postgresql
fi
