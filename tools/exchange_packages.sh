#!/bin/sh
# What `python -m bench exchange` compares with. Installed when we may, else the measurement says what is missing.
set -eu

PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=""
command -v scp >/dev/null 2>&1 || missing="$missing openssh-client"
command -v sshd >/dev/null 2>&1 || missing="$missing openssh-server"
command -v rsync >/dev/null 2>&1 || missing="$missing rsync"
if [ -z "$missing" ]; then exit 0; fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing$missing for the comparison"
  log=$(mktemp)
  # shellcheck disable=SC2086  # a list of packages
  if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
fi
echo "the comparison needs$missing (Debian, Ubuntu: apt install$missing)" >&2
exit 1
