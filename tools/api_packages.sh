#!/bin/sh
# What `python -m bench api` loads a node with. Installed when we may, else the measurement says what is missing.
set -eu

missing=""
command -v wrk >/dev/null 2>&1 || missing="$missing wrk"
# shellcheck disable=SC2086  # a list of packages
exec sh "$(dirname "$0")/install_packages.sh" "the load of the API" $missing
