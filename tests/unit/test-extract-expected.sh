#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Recorded replies against an independent reading, under three host zones: none of them may matter. TAP.
set -eu

here=${srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
tool=${builddir:-$here}/tests/unit/recipe-tool
MERVIS_RECIPES_DIR=$here/crawler/recipe
export MERVIS_RECIPES_DIR

python3 -c 'import zoneinfo; zoneinfo.ZoneInfo("Asia/Seoul")' 2>/dev/null || {
    echo "1..0 # SKIP needs python3 with zoneinfo, and tzdata"
    exit 0
}

number=0
failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for zone in UTC Pacific/Kiritimati America/Los_Angeles; do
    TZ=$zone python3 "$here/tests/unit/extract-expected.py" "$tool" "$here/tests/fixtures" >"$out" || failed=1
    while IFS= read -r line; do
        case $line in
        1..*) ;;
        "ok "* | "not ok "*)
            number=$((number + 1))
            rest=${line#* - }
            echo "${line%% [0-9]*} $number - TZ=$zone $rest"
            ;;
        *) echo "$line" ;;
        esac
    done <"$out"
done
echo "1..$number"
exit $failed
