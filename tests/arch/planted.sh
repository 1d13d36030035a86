#!/usr/bin/env bash
# Shows that each wall catches a violation: plants one in a copy of the sources and expects failure.
# planted.sh ROOT CC
set -euo pipefail
root=$1
cc=$2
here=$root/tests/arch
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
failures=0

fresh() {
    rm -rf "${copy:?}/"*
    cp -r "$root"/{CMakeLists.txt,platform,modules,contracts} "$copy"/
    mkdir -p "$copy/tests/fault"
    cp "$root/tests/fault/fault_main.c" "$copy/tests/fault/"
}

expect_refusal() { # NAME WORDS COMMAND...
    local name=$1 words=$2 output
    shift 2
    if output=$("$@" 2>&1); then
        echo "NOT CAUGHT: $name"
        failures=$((failures + 1))
    elif ! grep -qF "$words" <<<"$output"; then
        echo "refused for another reason: $name; expected '$words' in:"
        echo "$output" | tail -5
        failures=$((failures + 1))
    else
        echo "caught: $name"
    fi
}

configure() { cmake -S "$copy" -B "$copy/build" -G Ninja -DWAYBILL_TESTS=OFF -DCMAKE_C_COMPILER="$cc"; }
walls() { "$here/walls.sh" "$copy"; }

fresh
walls >/dev/null || { echo "the unbroken copy does not pass"; exit 1; }
configure >/dev/null 2>&1 || { echo "the unbroken copy does not configure"; exit 1; }

fresh
sed -i 's/LAYER 3 DEPENDS base subject message observe/LAYER 3 DEPENDS base subject message observe outbox/' \
    "$copy/platform/event_bus/CMakeLists.txt"
echo 'waybill_component(event_bus LAYER 3 DEPENDS base outbox)' >"$copy/platform/event_bus/CMakeLists.txt"
expect_refusal "a sideways link (event_bus -> outbox)" "layer rule" configure

fresh
echo 'waybill_component(subject LAYER 1 DEPENDS base http)' >"$copy/platform/subject/CMakeLists.txt"
expect_refusal "an upward link (subject -> http)" "layer rule" configure

fresh
sed -i -E '0,/waybill_module\(([a-z]+)/s//waybill_module(\1 DEPENDS event_bus_memory/' "$copy"/modules/*/CMakeLists.txt
expect_refusal "a module that links an implementation" "module wall" configure

fresh
echo '#include <waybill/http.h>' >>"$copy/platform/subject/src/planted.c"
expect_refusal "an upward include" "only strictly lower layers" walls

fresh
echo '#include <waybill/event_bus_impl.h>' >>"$copy/platform/event_consumer/src/planted.c"
expect_refusal "an spi header where nothing is implemented" "does not implement" walls

fresh
echo '#include <nats/nats.h>' >>"$copy/platform/outbox_publisher/src/planted.c"
expect_refusal "nats.h outside its home" "outside its home" walls

fresh
echo '#include <sqlite3.h>' >>"$copy/platform/outbox/include/waybill/outbox.h"
expect_refusal "a public header with a foreign header" "public header includes foreign" walls

fresh
echo '#include <waybill_modules/auth.h>' >>"$copy/modules/notify/src/planted.c"
expect_refusal "a module that includes another" "another module's" walls

fresh
echo '#include <waybill/event_bus_nats.h>' >>"$copy/modules/notify/src/planted.c"
expect_refusal "a module that includes an implementation" "only strictly lower layers" walls

fresh
echo 'int x;' >"$copy/contracts/planted.c"
expect_refusal "code in contracts" "hold no code" walls

fresh
echo 'WB_CRASH_POINT("outbox_publisher.planted");' >>"$copy/platform/outbox_publisher/src/planted.c"
expect_refusal "a crash point no campaign runs into" "does not run into it" walls

fresh
echo 'int helper(void); int helper(void) { return 1; }' >"$copy/planted.c"
"$cc" -c "$copy/planted.c" -o "$copy/planted.o"
ar rcs "$copy/libwaybill_outbox.a" "$copy/planted.o"
expect_refusal "an exported name without its component's prefix" "symbol rule" \
    "$here/symbols.sh" "$copy/libwaybill_outbox.a"

[ "$failures" -eq 0 ] || exit 1
