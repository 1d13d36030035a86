#!/usr/bin/env bash
# A publisher that is stopped keeps its role, until it is fenced.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start_nats main
cat >waybill.conf <<END
bus = "nats"
[nats]
url = "$url"
[stream.ORDERS]
subjects = "orders.>"
END

run outbox fence --db none.db --stream ORDERS
exits 3
run outbox add orders.first 1 --db o.db
run outbox fence --db o.db --stream ORDERS
exits 3
complains 'nobody has ever published' 'outbox status'
run outbox fence --db o.db
exits 2
complains '--stream'
run outbox fence --stream ORDERS
exits 2
complains '--db'

start runner outbox run --db o.db --config waybill.conf
runner=$started
await runner.err 'publishing o.db'
for _ in $(seq 500); do
    run outbox status --db o.db
    [[ $out == *'pending         0'* ]] && break
done
says 'pending         0'
kill -STOP "$runner"
run outbox add orders.second 2 --db o.db
run outbox run --db o.db --once --config waybill.conf --timeout 1s
exits 6
complains 'another process publishes'
run outbox fence --db o.db --stream ORDERS --json
exits 0
keeps outbox.fence
says '"holder":2'
run operator log --db o.db
says 'outbox fence'
run outbox run --db o.db --once --config waybill.conf
exits 0
says 'published 1'
kill -CONT "$runner"
run outbox add orders.third 3 --db o.db
for _ in $(seq 500); do
    run outbox status --db o.db
    [[ $out == *'pending         0'* ]] && break
done
says 'up to row 3 at sequence 3' # the one put out stood by, and has taken the role again
run outbox fence --db o.db --stream ORDERS
exits 0
says 'stream ORDERS  holder'
complains 'stands by'
kill -TERM "$runner"
ends "$runner" 0
finish
