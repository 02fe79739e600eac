#!/bin/sh
# What the rig needs from the system: namespaces and packet filters. Installed when we may, else the rig says what is missing.
set -eu

missing=""
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
if [ -z "$missing" ]; then exit 0; fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing$missing for the rig"
  log=$(mktemp)
  # shellcheck disable=SC2086  # a list of packages
  if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
fi
echo "the rig needs$missing (Debian, Ubuntu: apt install$missing)" >&2
