#!/bin/sh
# install_packages.sh PURPOSE PACKAGE...: system packages, installed when we may, else named. For the scripts beside it, which
# look what is missing.
set -eu

purpose=$1
shift
if [ $# = 0 ]; then exit 0; fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing $* for $purpose"
  log=$(mktemp)
  if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
fi
echo "$purpose: the system lacks $*: install it (Debian, Ubuntu: apt install $*) and try again" >&2
exit 1
