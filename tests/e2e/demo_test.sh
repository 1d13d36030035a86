#!/usr/bin/env bash
# The demo on the in-memory bus: an outage and crashes, nothing lost, doubled or out of order.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

export TMPDIR=$dir
run demo --bus memory --json
exits 0
says '"bus":"memory","good":true'
says '"module":"webhooks","stream":"WEBHOOKS","committed":220,"published":220,"stored":220,"audit":220'
says '"module":"auth","stream":"AUTH","committed":30,"published":30,"stored":30,"audit":30,"notify":30,"ar":30,"lost":0'
complains 'the bus is stopped' 'a crash of the publisher'
is 'files left behind' "$(find "$dir" -maxdepth 1 -name 'waybill-demo-*' | wc -l)" 0
run demo --bus dual
exits 2
complains 'usage:'
run demo surplus
exits 2
finish
