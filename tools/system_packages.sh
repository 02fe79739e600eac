#!/bin/sh
# What the tests need from the system: Chromium, which looks at the dashboard. Installed when we may, else named.
set -eu

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done

exec sh "$(dirname "$0")/install_packages.sh" "the dashboard's tests" chromium
