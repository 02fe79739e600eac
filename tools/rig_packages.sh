#!/bin/sh
# What the rig needs from the system: namespaces and packet filters. Installed when we may, else the rig says what is missing.
set -eu

missing=""
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
# shellcheck disable=SC2086  # a list of packages
exec sh "$(dirname "$0")/install_packages.sh" "the rig" $missing
