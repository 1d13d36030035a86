#!/usr/bin/env bash
# `waybill match`: what matches, what does not, what is refused.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

run match 'auth.*.created' auth.user.created
exits 0
says 'match     auth.user.created'

run match 'auth.>' auth.user.created auth.x
exits 0
run match 'auth.>' auth.user.created billing.x
exits 1
says 'match     auth.user.created'
says 'no match  billing.x'
run match 'auth.*' auth.a.b
exits 1
run match --dialect nats a.b a.b
exits 0

run match --json 'a.*' a.b b.c
exits 1
keeps match
says '{"subject":"a.b","match":true}'
says '{"subject":"b.c","match":false}'
says '"all":false'

for pattern in '' 'a..b' '.a' 'a.' 'a.>.b' 'a*' 'a.b>' 'a b' $'a\tb' $'a.\x7f' $'\xff' "\$SYS.>" '_INBOX.>'; do
    run match -- "$pattern" a.b
    exits 7
    silent
    complains 'waybill match: '
done
for subject in '' 'a..b' 'a.' '*' 'a.>' 'a b' $'a\r\nPUB x' $'\xc0\x80' "\$JS.API.X" "$(printf 'a%.0s' $(seq 256))"; do
    run match '>' "$subject"
    exits 7
    silent
done
run match '>' $'a\033[2J.b'
exits 7
[[ $err != *$'\033'* ]] || flunk 'an escape sequence reached the terminal'

run match --json 'a..b' a
exits 7
keeps_error
complains '"code":"INVALID"'

run match --dialect zenoh 'a/**' a/b
exits 7
complains 'not in this build yet'
run match --dialect mqtt a b
exits 2
complains "--dialect 'mqtt'" 'nats or zenoh'
run match 'a.b'
exits 2
complains 'PATTERN SUBJECT...' 'waybill help match'
finish
