#!/usr/bin/env bash
# Straight to NATS: pub, sub, the outbox published, and servers that are not as they should be.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start_nats main
main=$url
main_pid=$nats_pid

cat >waybill.conf <<END
bus = "nats"
data = "$dir/var"

[nats]
url = "$main"

[http]
listen = "127.0.0.1:$(closed_port)"

[stream.ORDERS]
subjects = "orders.>"
END

# ---- the outbox, published -----------------------------------------------------------------------------
run outbox add orders.placed '{"id":1}' --db o.db --key k -H 'x-a: 1'
exits 0
run outbox add orders.placed '{"id":2}' --db o.db
exits 0
run outbox run --db o.db --once --config waybill.conf
exits 0
says 'published 2  retry 0  parked 0  pending 0'
run outbox status --db o.db
says 'pending         0'
says 'stream   ORDERS  published up to row 2 at sequence 2'
run outbox run --db o.db --once --json --config waybill.conf
exits 0
keeps outbox.run
says '"published":0'
run outbox ls --db o.db --state published --json
keeps outbox.ls 2

# Rows for a stream that only the server knows.
sqlite3 o.db "INSERT INTO outbox(subject, payload) VALUES('billing.paid', 'x')"
run outbox run --db o.db --once --config waybill.conf
exits 8
complains 'billing.paid'
run outbox ls --db o.db --json
keeps outbox.ls 3
cat >billing.conf <<END
bus = "nats"
[nats]
url = "$main"
[stream.BILLING]
subjects = "billing.>"
END
run pub billing.first 1 --config billing.conf
exits 3
run outbox add billing.sent 1 --db b.db
run outbox run --db b.db --once --config billing.conf
exits 0
says 'published 1'
run outbox add orders.third 3 --db o.db
# The row that was refused waits for its next try.
for _ in $(seq 200); do
    run outbox run --db o.db --once -s "$main"
    [ "$status" -eq 8 ] || break
done
exits 0
run outbox ls --db o.db --state published --json
keeps outbox.ls 4

# A row names its stream.
run outbox add billing.named 1 --db named.db --stream BILLING
run outbox run --db named.db --once -s "$main"
exits 0
says 'published 1'

# Without a stream for anything.
run outbox add nobody.covers 1 --db n.db
run outbox run --db n.db --once -s "$main"
exits 3
complains 'nobody.covers'

# ---- pub and sub -----------------------------------------------------------------------------------------
run pub orders.direct hello -s "$main" --id my-1
exits 0
says 'published orders.direct  5 B  stream ORDERS seq 4'
run pub orders.direct hello -s "$main" --id my-1
exits 0
says 'duplicate'
NATS_URL=$main run pub orders.direct again --bus nats --json
exits 0
keeps pub
run pub orders.many x --count 50 -s "$main"
exits 0
says '50 times'
run sub 'orders.>' --all --count 3 --json -s "$main"
exits 0
keeps sub 3
says '"x-a":["1"]'
run sub 'orders.placed' --all --count 2 --raw --config waybill.conf
exits 0
is 'payloads' "$out" '{"id":1}
{"id":2}'
run sub 'orders.none' --count 1 --wait 200ms -s "$main"
exits 4

start live sub 'orders.live' --count 1 --json -s "$main"
live=$started
await live.err 'listening'
run pub orders.live now -s "$main"
ends "$live" 0
is 'messages seen live' "$(grep -c '"payload":"now"' live.out)" 1
start stopped sub 'orders.>' -s "$main"
stopped=$started
await stopped.err 'listening'
kill -TERM "$stopped"
ends "$stopped" 130

# A durable goes on where it stopped.
run sub 'orders.placed' --durable reader --count 1 --raw -s "$main"
exits 0
is 'first of the durable' "$out" '{"id":1}'
run sub 'orders.placed' --durable reader --count 1 --raw -s "$main" --wait 20s
exits 0
is 'second of the durable' "$out" '{"id":2}'

# ---- until a signal -----------------------------------------------------------------------------------------
start runner outbox run --db o.db --config waybill.conf
runner=$started
await runner.err 'publishing o.db'
start watcher sub 'orders.later' --count 1 -s "$main"
watcher=$started
await watcher.err 'listening'
run outbox add orders.later 1 --db o.db
ends "$watcher" 0
run outbox run --db o.db --once --config waybill.conf --timeout 1s
[ "$status" -eq 0 ] || [ "$status" -eq 6 ] || flunk 'a second publisher: expected 0 or 6'
kill -TERM "$runner"
ends "$runner" 0

# ---- serve and doctor -----------------------------------------------------------------------------------------
run doctor --config waybill.conf
exits 0
says 'ok    server'
says 'ok    jetstream'
start serve serve --config waybill.conf --http 127.0.0.1:0
serve=$started
await serve.err 'waybill serves: http://'
await serve.err 'bus nats'
run sub 'orders.placed' --all --count 2 --json --bus memory \
    --http "$(sed -nE 's,.*waybill serves: http://([0-9.:]+)\, bus.*,\1,p' serve.err)"
exits 0
keeps sub 2
kill -TERM "$serve"
ends "$serve" 0
run doctor --config waybill.conf --json
exits 0
keeps doctor
printf 'stream_provision = "verify"\n[stream.GONE]\nsubjects = "gone.>"\n' >gone.conf
run doctor --config gone.conf -s "$main"
exits 1
says 'FAIL  streams'
says 'GONE'
run outbox run --db o.db --once --config gone.conf -s "$main"
exits 3
complains 'GONE'
printf 'bus = "nats"\n[nats]\nurl = "%s"\n[stream.ORDERS]\nsubjects = "other.>"\n' "$main" >drift.conf
run doctor --config drift.conf
exits 1
says 'FAIL  streams'
says 'fix: '
run outbox run --db o.db --once --config drift.conf
exits 6
complains 'ORDERS'

# A server that lost what was published, and a row that was refused.
start_nats empty
mkdir lossy
cp o.db lossy/orders.db
cp n.db lossy/nobody.db
run outbox add orders.one 1 --db one.db
run outbox run --db one.db --once --config waybill.conf -s "$url"
exits 0
run doctor --data lossy -s "$url"
exits 0
says 'the server has lost messages'
says 'stream ORDERS ends at 1'
sqlite3 lossy/nobody.db "INSERT INTO outbox_exception(id, state, error) VALUES(1, 'parked', 'no')"
run doctor --data lossy -s "$url"
says '1 parked'
says 'waybill outbox ls --db lossy/nobody.db --state parked'

# ---- refusals ----------------------------------------------------------------------------------------------------
run pub nobody.covers.this hi -s "$main" --timeout 2s
exits 3
complains 'nobody.covers.this'
head -c 1100000 /dev/zero | tr '\0' x >large
run pub orders.x @large -s "$main"
exits 7
run pub orders.x hi -s "$main" -H 'Nats-Msg-Id: x'
exits 7
run sub nobody.covers.this -s "$main"
exits 3
run pub orders.x hi -s 'not a url'
exits 7
# Something else listens where the service should.
run pub orders.x hi --http "${main#nats://}"
exits 4
complains "${main#nats://}"

start_nats bare no-jetstream
for command in 'pub orders.x hi' 'sub orders.x' 'outbox run --db o.db --once'; do
    # shellcheck disable=SC2086 # words
    run $command -s "$url" --timeout 2s
    exits 4
    silent
    complains 'JetStream'
done
run doctor -s "$url"
exits 1
says 'ok    server'
says 'FAIL  jetstream'
says 'store_dir'

start_nats guarded 'authorization { user: app, password: right }'
run pub orders.x hi -s "$url"
exits 5
NATS_USER=app NATS_PASSWORD=wrong1secret run pub orders.x hi -s "$url"
exits 5
[[ $err$out != *wrong1secret* ]] || flunk 'the password was printed'
NATS_USER=app NATS_PASSWORD=wrong1secret run doctor -s "$url"
exits 1
says 'NATS_PASSWORD'
[[ $err$out != *wrong1secret* ]] || flunk 'the password was printed'
NATS_USER=app NATS_PASSWORD=right run doctor -s "$url"
exits 0

kill -KILL "$main_pid"
wait "$main_pid" 2>/dev/null
run outbox add orders.waits 1 --db o.db
for command in 'pub orders.x hi' 'sub orders.x' 'outbox run --db o.db --once'; do
    # shellcheck disable=SC2086 # words
    run $command -s "$main" --timeout 2s
    exits 4
    complains "${main#nats://}"
done
run pub orders.x hi --json -s "$main"
exits 4
keeps_error
run doctor -s "$main"
exits 1
says 'FAIL  server'
says 'nats-server -js'
run outbox status --db o.db
says 'pending         1'
finish
