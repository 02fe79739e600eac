#!/bin/sh
# What the tests need from the system: Chromium, which looks at the dashboard, and systemd's tools, which read the unit files.
# Installed when we may, else named.
set -eu

folder=$(dirname "$0")

has_browser() {
  for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then return 0; fi
  done
  return 1
}

has_systemd_tools() {
  if [ "$(uname -s)" != Linux ]; then return 0; fi
  command -v systemd-analyze >/dev/null 2>&1 && command -v systemd-sysusers >/dev/null 2>&1
}

if ! has_browser; then sh "$folder/install_packages.sh" "the dashboard's tests" chromium; fi
if ! has_systemd_tools; then sh "$folder/install_packages.sh" "the tests of the service" systemd libseccomp2; fi
