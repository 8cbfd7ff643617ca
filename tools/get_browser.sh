#!/bin/sh
# Chromium and its driver for the tests of the page, where they can be had: by apt-get, as root.
# Never fails: without them those tests are skipped and say so.
have() { command -v "$1" >/dev/null 2>&1; }
if have chromedriver && { have chromium || have chromium-browser || have google-chrome; }; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && have apt-get; then
  export DEBIAN_FRONTEND=noninteractive
  limit=""
  have timeout && limit="timeout 240"
  echo "Fetching Chromium for the tests of the page ..."
  { $limit apt-get update -qq && $limit apt-get install -y -qq --no-install-recommends \
    chromium chromium-driver; } </dev/null >/dev/null 2>&1
fi
have chromedriver || echo "No chromedriver: the tests of the page in a browser will be skipped."
exit 0
