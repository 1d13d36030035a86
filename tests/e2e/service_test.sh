#!/usr/bin/env bash
# A running service on the memory bus: serve, pub and sub through it, doctor, a clean stop.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

cat >waybill.conf <<END
data = "$dir/var"

[http]
listen = "127.0.0.1:0"

[stream.ORDERS]
subjects = "orders.>"
END

# ---- nobody there ------------------------------------------------------------------------------------
for command in 'pub orders.x hi' 'sub orders.x'; do
    # shellcheck disable=SC2086 # words
    run $command --http "127.0.0.1:$(closed_port)"
    exits 4
    silent
    complains 'no service answers' 'waybill serve' '-s nats://'
done
run pub orders.x hi --http 127.0.0.1:0
exits 7
complains '--http'
run pub orders.x hi --http off
exits 4
complains '-s URL'
run pub orders.x hi --json --http "127.0.0.1:$(closed_port)"
exits 4
keeps_error
complains '"code":"UNREACHABLE"'

# ---- serve -------------------------------------------------------------------------------------------
start serve serve --config waybill.conf
serve=$started
await serve.err 'waybill serves: http://'
is 'lines of serve on standard output' "$(wc -l <serve.out)" 0
http=$(sed -nE 's,.*waybill serves: http://([0-9.:]+)\, bus memory.*,\1,p' serve.err)
[ -n "$http" ] || die "serve does not tell its address: $(cat serve.err)"
export WAYBILL_HTTP_LISTEN=$http

run serve --config waybill.conf --data "$dir/other" --http "$http"
exits 6
complains "$http"

# ---- pub and sub through it ----------------------------------------------------------------------------
run pub orders.placed '{"id":1}'
exits 0
says 'published orders.placed  8 B  stream ORDERS seq 1'
run pub orders.placed --json --id my-1 -H 'x-a: 1' -H 'x-a: 2' '{"id":2}'
exits 0
keeps pub
says '"msg_id":"my-1","stream":"ORDERS","sequence":2,"duplicate":false'
run pub orders.placed --id my-1 '{"id":2}'
exits 0
says 'duplicate'
run pub orders.many x --count 20 --json
exits 0
keeps pub 20
is 'identities of 20 messages' "$(grep -oE '"msg_id":"[0-9a-f]{32}"' .out | sort -u | wc -l)" 20
printf '\000\377' >bytes
input=bytes run pub orders.bytes -
exits 0
run pub orders.empty
exits 0

run sub 'orders.>' --all --count 2
exits 0
says '#1 '
says 'ORDERS/1  8 B'
says '   {"id":1}'
says '   x-a: 1'
complains 'listening on 1 pattern'
run sub 'orders.>' --all --count 24 --json
exits 0
keeps sub 24
is 'lines of sub --json' "$(wc -l <.out)" 24
says '"x-a":["1","2"]'
says '"payload_base64":"AP8="'
run sub orders.bytes --all --count 1 --raw
exits 0
printf '\000\377\n' | cmp -s - .out || flunk 'sub --raw changes the payload'
run sub orders.placed 'orders.*' --all --count 1 -q
exits 0
says 'matched orders.placed'
complains ''
is 'talk with -q' "$err" ''
run sub 'orders.>' --count 1 --wait 100ms
exits 4
complains '0 of 1 messages'
run sub 'orders.>' --wait 100ms
exits 0

start live sub 'orders.>' --count 2 --json
live=$started
await live.err 'listening'
run pub orders.live 1
run pub orders.live 2
ends "$live" 0
is 'messages seen live' "$(grep -c '"subject":"orders.live"' live.out)" 2

start stopped sub 'orders.>'
stopped=$started
await stopped.err 'listening'
kill -TERM "$stopped"
ends "$stopped" 130

# ---- refusals ------------------------------------------------------------------------------------------
run pub orders..x hi
exits 7
run pub nobody.covers.this hi
exits 3
complains 'nobody.covers.this'
run pub orders.x hi -H 'Nats-Msg-Id: 1'
exits 7
run pub orders.x hi -H $'a: b\r\nHost: evil'
exits 7
run pub orders.x hi --id 'two words'
exits 7
head -c 1100000 /dev/zero | tr '\0' x >large
run pub orders.x @large
exits 7
run pub orders.x @no-such-file
exits 3
run sub 'a..b'
exits 7
run sub 'orders.>' --durable d
exits 7
complains '-s nats://'

# ---- doctor, modules -------------------------------------------------------------------------------------
run doctor --config waybill.conf
exits 0
says 'memory'
says "ready at $http"
says 'audit.db'
says '0 failures'
run doctor --config waybill.conf --json
exits 0
keeps doctor
run audit verify --config waybill.conf
exits 0
run audit verify --json --config waybill.conf
exits 0
run --config waybill.conf audit ls
exits 0
run audit verify --data "$dir/nowhere"
exits 3
complains 'audit.db' '--data'

# ---- the end -----------------------------------------------------------------------------------------------
kill -TERM "$serve"
ends "$serve" 0
run doctor --config waybill.conf
exits 0
says 'none runs'
printf 'garbage, garbage, garbage' >"$dir/var/audit.db"
run doctor --config waybill.conf
exits 1
says 'FAIL  audit.db'
says 'fix: '
run audit verify --config waybill.conf
exits 7
printf 'bsu = "nats"\n' >bad.conf
run doctor --config bad.conf
exits 1
says 'FAIL  config'
says 'bad.conf:1'
finish
