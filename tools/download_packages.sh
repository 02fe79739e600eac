#!/bin/sh
# What `python -m bench download` compares with. Installed when we may, else the measurement goes on without it.
set -eu

missing=""
command -v aria2c >/dev/null 2>&1 || missing="aria2"
# shellcheck disable=SC2086  # a list of packages
exec sh "$(dirname "$0")/install_packages.sh" "the comparison with aria2c" $missing
