#!/usr/bin/env bash
# The demo on JetStream: its own nats-server is killed for seconds, the whole service again and again.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

export TMPDIR=$dir
run demo --bus nats
exits 0
for row in 'webhooks +220 +220 +220 +220 +- +- +0 +0 +0' 'auth +30 +30 +30 +30 +30 +30 +0 +0 +0' \
    'ar +90 +90 +90 +90 +60 +- +0 +0 +0'; do
    checks=$((checks + 1))
    grep -qE "^$row\$" <<<"$out" || flunk "the table lacks a row '$row'"
done
complains 'the bus is stopped' 'SIGKILL to the whole service'
is 'files left behind' "$(find "$dir" -maxdepth 1 -name 'waybill-demo-*' | wc -l)" 0
is 'servers left behind' "$(pgrep -fc "$dir/waybill-demo" || true)" 0
finish
