#!/bin/sh
# What `python -m bench exchange` compares with. Installed when we may, else the measurement says what is missing.
set -eu

PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=""
command -v scp >/dev/null 2>&1 || missing="$missing openssh-client"
command -v sshd >/dev/null 2>&1 || missing="$missing openssh-server"
command -v rsync >/dev/null 2>&1 || missing="$missing rsync"
# shellcheck disable=SC2086  # a list of packages
exec sh "$(dirname "$0")/install_packages.sh" "the comparison with scp and rsync" $missing
