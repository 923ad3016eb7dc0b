#!/usr/bin/env bash
# What the tests need besides Python: PostgreSQL (15 or newer) and Redis (7 or newer) to start private copies of, and
# Chromium to look at the page with.
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
if ! command -v redis-server >/dev/null; then
  programs_or_say redis-server "Redis 7 or newer (for the tests)" redis-server
fi
if ! command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null; then
  # Debian has the part that tests need as a package of its own, which is smaller and quicker.
  case "$(. /etc/os-release 2>/dev/null; echo "${ID:-}")" in debian) browser=chromium-headless-shell ;; *) browser=chromium ;; esac
  apt_or_say "Chromium (for the tests)" "$browser"
fi
