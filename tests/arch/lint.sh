#!/usr/bin/env bash
# The forms of the house: clang-format 14, clang-tidy 14 (with the size caps), shellcheck.
set -euo pipefail
cd "$(dirname "$0")/../.."

mapfile -t c_files < <(git ls-files '*.c' '*.h')
mapfile -t scripts < <(git ls-files dev .ci/run '*.sh')

echo "clang-format: ${#c_files[@]} files"
clang-format-14 --dry-run -Werror "${c_files[@]}"

echo "shellcheck: ${#scripts[@]} files"
shellcheck -x "${scripts[@]}"

cmake --preset clang >/dev/null
mapfile -t units < <(git ls-files 'platform/*.c' 'modules/*.c' 'tests/*.c' | while read -r file; do
    grep -q "\"file\": \".*/$file\"" build/clang/compile_commands.json && echo "$file"
done)
echo "clang-tidy: ${#units[@]} files"
found=$(mktemp)
trap 'rm -f "$found"' EXIT
status=0
printf '%s\n' "${units[@]}" |
    xargs -P 2 -n 4 clang-tidy-14 --quiet -p build/clang >"$found" 2>/dev/null || status=$?
cat "$found"
exit $status
