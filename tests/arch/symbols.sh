#!/usr/bin/env bash
# The symbol rule: every global name of a component starts with the component's (wb_ for base).
# symbols.sh LIBRARY... with names lib<project>_<component>.a; prints each breach and fails.
set -euo pipefail
breaches=0
checked=0
for library in "$@"; do
    component=$(basename "$library" .a)
    component=${component#libwaybill_}
    prefix=$component
    [ "$component" = base ] && prefix=wb
    while read -r _ type name; do
        checked=$((checked + 1))
        case $name in
        "$prefix" | "$prefix"_*) ;;
        *)
            echo "symbol rule: $component exports '$name' ($type): expected ${prefix}_..."
            breaches=$((breaches + 1))
            ;;
        esac
    done < <(nm --defined-only --extern-only "$library" 2>/dev/null |
        awk 'NF == 3 && $2 ~ /[TDBRVWC]/ && $3 !~ /^(__asan|__odr|__ubsan|__tsan|__local_asan)/')
done
[ "$checked" -gt 0 ] || { echo "symbol rule: no symbols found in: $*"; exit 1; }
[ "$breaches" -eq 0 ] || { echo "$breaches breaches"; exit 1; }
echo "$checked names in $# libraries start as they should"
