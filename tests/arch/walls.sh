#!/usr/bin/env bash
# The include rule of the house, read from the sources. walls.sh ROOT prints each breach and fails.
#   - a component includes its own headers and those of strictly lower layers
#   - spi headers only where the component IMPLEMENTS that interface
#   - foreign headers only in their homes; public headers name none
#   - modules include layers 0 to 3 and their own headers, never another module's
#   - contracts hold no code
#   - who starts a thread says so in the public header
#   - each crash point is one that the fault campaign runs into
set -euo pipefail
root=$1
cd "$root"
breaches=0
breach() {
    echo "wall: $*"
    breaches=$((breaches + 1))
}

declare -A layer implements
while read -r file; do
    # One call may span lines: join them first.
    call=$(tr '\n' ' ' <"$file" | grep -o 'waybill_component([^)]*)' || true)
    [ -n "$call" ] || continue
    name=$(sed -E 's/waybill_component\( *([a-z_]+).*/\1/' <<<"$call")
    layer[$name]=$(sed -E 's/.*LAYER ([0-9]+).*/\1/' <<<"$call")
    implements[$name]=$(sed -nE 's/.*IMPLEMENTS +([a-z_ ]+).*/\1/p' <<<"$call")
done < <(find platform -mindepth 2 -maxdepth 2 -name CMakeLists.txt)
[ ${#layer[@]} -gt 0 ] || { echo "wall: no component found under $root/platform"; exit 1; }

# Homes of foreign headers: pattern -> who may include it.
home_of() {
    case $1 in
    nats/*) echo "event_bus_nats event_store_jetstream" ;;
    event2/*) echo "http sse console service" ;;
    sqlite3.h) echo "db operator_log outbox inbox dead_letter outbox_publisher outbox_retention outbox_replay outbox_verify event_consumer event_store_sqlite cache session_store schema_registry service" ;;
    esac
}

includes() { grep -hoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]+' "$1" | sed -E 's/.*[<"]//'; }

check_waybill_include() { # FILE OWNER OWNER_LAYER HEADER
    local target=${4#waybill/}
    target=${target%.h}
    if [[ $target == *_impl ]]; then
        local interface=${target%_impl}
        [ "$interface" = "$2" ] || [[ " ${implements[$2]:-} " == *" $interface "* ]] ||
            breach "$1: includes $4, but $2 does not implement $interface"
    elif [ "$target" != "$2" ]; then
        [ -n "${layer[$target]:-}" ] || { breach "$1: includes <$4>, which no component has"; return; }
        [ "${layer[$target]}" -lt "$3" ] ||
            breach "$1: $2 (layer $3) includes <$4> (layer ${layer[$target]}): only strictly lower layers"
    fi
}

check_file() { # FILE OWNER OWNER_LAYER
    local header homes
    while read -r header; do
        homes=$(home_of "$header")
        if [ -n "$homes" ]; then
            [[ $2 == module:* && $header == sqlite3.h ]] || [[ " $homes " == *" $2 "* ]] ||
                breach "$1: foreign header <$header> outside its home ($homes)"
            [[ $1 != */include/* ]] || breach "$1: a public header includes foreign <$header>"
        elif [[ $header == waybill/* ]]; then
            check_waybill_include "$1" "$2" "$3" "$header"
        elif [[ $header == waybill_modules/* ]]; then
            [ "$2" = "module:$(basename "$header" .h)" ] || [ "$2" = module:main ] ||
                breach "$1: $2 includes another module's <$header>"
        elif [[ $header == *..* ]]; then
            breach "$1: includes '$header': reach for no other room's files"
        fi
    done < <(includes "$1")
}

for component in "${!layer[@]}"; do
    while read -r file; do
        check_file "$file" "$component" "${layer[$component]}"
    done < <(find "platform/$component" -name '*.[ch]')
    if grep -rqs 'pthread_create' "platform/$component/src" &&
        ! grep -qs 'Threads ' "platform/$component/include/waybill/$component.h"; then
        breach "platform/$component starts threads and its header does not say so"
    fi
done
for module in modules/*/; do
    name=$(basename "$module")
    [ "$name" != demo ] || continue # part of the program, which joins modules and service
    while read -r file; do
        check_file "$file" "module:$name" 4
    done < <(find "$module" -name '*.[ch]')
done
while read -r file; do
    check_file "$file" module:main 7
done < <(find modules/main.c modules/demo -name '*.[ch]' 2>/dev/null)
while read -r file; do
    breach "$file: contracts depend on nothing and hold no code"
done < <(find contracts -name '*.[ch]' -o -name 'CMakeLists.txt')
while read -r point; do
    grep -qF "{\"$point\"," tests/fault/fault_main.c ||
        breach "crash point $point: tests/fault/fault_main.c does not run into it"
done < <(grep -rhoE 'WB_CRASH_POINT\("[^"]+' platform modules | cut -d'"' -f2)

[ "$breaches" -eq 0 ] || { echo "$breaches breaches"; exit 1; }
echo "walls hold: ${#layer[@]} components"
