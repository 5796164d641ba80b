# SPDX-License-Identifier: Apache-2.0
# A catalog of the journal as rows of C: {"MESSAGE_ID", "Subject", "remedy"}. Where nothing needs to be done the remedy
# is empty. Set `array` to the name of the array.

function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    return "\"" text "\""
}

function finish() {
    if (id == "")
        return
    sub(/^(Remedy|해결 방법): /, "", paragraph)
    if (paragraph ~ /^(Nothing needs to be done|할 일은 없습니다)/)
        paragraph = ""
    printf "    {%s, %s, %s},\n", quoted(id), quoted(subject), quoted(paragraph)
}

BEGIN { printf "static const EventText %s[] = {\n", array }
/^#/ { next }
/^-- / { finish(); id = $2; subject = paragraph = ""; next }
/^Subject: / { subject = substr($0, 10); next }
/^$/ { ended = 1; next }
{ paragraph = ended ? $0 : paragraph " " $0; ended = 0 }
END { finish(); print "};" }
