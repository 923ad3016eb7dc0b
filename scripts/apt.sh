# Sourced. programs_or_say UNIT WHAT PACKAGE... does as apt_or_say, for a server of which the programs alone are wanted: a
# unit that is masked before it is installed is neither started nor enabled, and a policy of 101 says the same to machines
# without systemd.
programs_or_say() (
  if [ "$(id -u)" = 0 ]; then
    mkdir -p /etc/systemd/system
    [ -e "/etc/systemd/system/$1.service" ] || ln -s /dev/null "/etc/systemd/system/$1.service"
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
      printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
    fi
  fi
  apt_or_say "${@:2}"
)

# apt_or_say WHAT PACKAGE... installs Debian packages where that is allowed, else says in one line what to install.
apt_or_say() {
  local what=$1
  shift
  local sudo=""
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo="no"; fi
  fi
  if [ "$sudo" = no ] || ! command -v apt-get >/dev/null; then
    echo "nanobatch needs $what. Install it with: sudo apt-get install $*" >&2
    exit 1
  fi
  echo "Installing $what: $*" >&2
  $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
    $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  } || { echo "Could not install $what. Try: sudo apt-get install $*" >&2; exit 1; }
}
