#!/usr/bin/env bash
# The service over HTTP as an operator and a module's client see it: pages, refusals, the bus.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

export WAYBILL_WEBHOOKS_SECRET=s3cret
start serve serve --data "$dir/var" --http 127.0.0.1:0
serve=$started
await serve.err 'waybill serves: http://'
http=$(sed -nE 's,.*waybill serves: http://([0-9.:]+)\, bus memory.*,\1,p' serve.err)

# ask EXPECTED_STATUS CURL_ARGS...: sets out to the body.
ask() {
    local expected=$1
    shift
    last="curl $*"
    out=$(curl -s -m 20 -w '\n%{http_code}' "$@" 2>"$dir/.err")
    status=${out##*$'\n'}
    out=${out%$'\n'*}
    checks=$((checks + 1))
    [ "$status" = "$expected" ] || flunk "$last: expected status $expected"
}
json='Content-Type: application/json'

# ---- pages -----------------------------------------------------------------------------------------
ask 200 "http://$http/livez"
says 'ok'
for _ in $(seq 100); do
    ask 200 "http://$http/readyz" || true
    [[ $out == *'[+]outbox webhooks drain'* ]] && break
    sleep 0.05
done
for part in '[+]bus ok: memory' '[+]streams ok' '[+]outbox auth' '[+]consumer audit_record ok'; do
    says "$part"
done
ask 200 "http://$http/metrics"
says 'waybill_build_info{version="'
says '# TYPE waybill_outbox_published_total counter'
ask 404 "http://$http/nothing"
ask 405 -X POST -d '' "http://$http/metrics"
ask 421 -H 'Host: evil.example' "http://$http/livez"

# ---- a page of another site may not act --------------------------------------------------------------
user='{"email":"ada@example.org","name":"Ada"}'
ask 403 -H "$json" -H 'Origin: http://evil.example' -d "$user" "http://$http/auth/users"
ask 403 -H "$json" -H 'Origin: null' -d "$user" "http://$http/auth/users"
ask 403 -H "$json" -H 'Sec-Fetch-Site: cross-site' -d "$user" "http://$http/auth/users"
ask 201 -H "$json" -H "Origin: http://$http" -H 'Sec-Fetch-Site: same-origin' -d "$user" \
    "http://$http/auth/users"
ask 409 -H "$json" -d "$user" "http://$http/auth/users"
ask 200 "http://$http/auth/users"
says 'ada@example.org'

# ---- a delivery, signed ---------------------------------------------------------------------------------
body='{"action":"opened","repository":{"full_name":"o/r"}}'
signature=sha256=$(printf %s "$body" | openssl dgst -sha256 -hmac s3cret -r | cut -d' ' -f1)
deliver() { # STATUS SIGNATURE ID
    ask "$1" -H "$json" -H 'X-GitHub-Event: issues' -H "X-GitHub-Delivery: $3" \
        -H "X-Hub-Signature-256: $2" -d "$body" "http://$http/webhooks/github"
}
deliver 202 "$signature" d-1
says '"subject":"webhooks.github.issues.opened"'
deliver 200 "$signature" d-1
says '"duplicate":true'
deliver 401 "sha256=$(printf '0%.0s' $(seq 64))" d-2
deliver 401 'sha256=beef' d-2

# ---- publish and subscribe over HTTP ----------------------------------------------------------------------
ask 200 -H "$json" -d '{"patterns":["auth.manual.>"],"start":"all"}' "http://$http/bus/subscriptions"
id=$(sed -nE 's/.*"id":"([0-9a-f]{32})".*/\1/p' <<<"$out")
ask 200 -H 'msg-id: m1' -H 'waybill-header: x-a: 1' -d hello "http://$http/bus/publish?subject=auth.manual.x"
says '"stream":"AUTH"'
ask 200 -H 'msg-id: m1' -d hello "http://$http/bus/publish?subject=auth.manual.x"
says '"duplicate":true'
for _ in $(seq 100); do
    ask 200 "http://$http/bus/subscriptions/next?id=$id"
    [ -z "$out" ] || break
    sleep 0.02
done
says '"subject":"auth.manual.x"'
says '"headers":{"x-a":["1"]}'
says '"payload":"hello"'
ask 404 -d x "http://$http/bus/publish?subject=nobody.covers.this"
says '"code":"NO_STREAM"'
for bad in 'a..b' 'a.%2a' '%24JS.x' 'a%20b' '' 'a%0d%0ab'; do
    ask 400 -d x "http://$http/bus/publish?subject=$bad"
done
ask 400 -d x "http://$http/bus/publish"
ask 404 "http://$http/bus/subscriptions/next?id=0123456789abcdef0123456789abcdef"
for bad in '{"patterns":[]}' '{"patterns":["a..b"]}' '{"patterns":[7]}' '[]' 'nonsense' \
    '{"patterns":["auth.>"],"start":"middle"}'; do
    ask 400 -H "$json" -d "$bad" "http://$http/bus/subscriptions"
done
for _ in $(seq 63); do
    ask 200 -H "$json" -d '{"patterns":["auth.>"]}' "http://$http/bus/subscriptions"
done
ask 503 -H "$json" -d '{"patterns":["auth.>"]}' "http://$http/bus/subscriptions"
says '64 subscriptions are open'

# ---- the audit record, by its command ------------------------------------------------------------------------
kill -TERM "$serve"
ends "$serve" 0
run audit verify --data "$dir/var"
exits 0
finish
