#!/usr/bin/env bash
# Send each line of standard input as one request, 8 at a time over kept connections, and print the
# answers in order, one JSON a line. What is refused for a moment (429, 500, 502, 503, 504, a time-out)
# is asked again; a line without a whole answer gets {"code": 0, ...}, and the exit code is then curl's.
#
# usage:   batch_curl.sh URL HEADER_FILE < sentences.txt > answers.jsonl
# example: head -40 sentences.txt |
#            scripts/batch_curl.sh http://127.0.0.1:8080/predictions/NAME .serve/default/inference.header
set -euo pipefail

[ $# -eq 2 ] && [ -r "$2" ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The token goes through a file: an argument would be readable by every user of the machine.
cp "$2" "$folder/header"

count=0
while IFS= read -r line || [ -n "$line" ]; do
  count=$((count + 1))
  printf '%s' "$line" >"$folder/$count.in"
  [ "$count" -eq 1 ] || echo next
  printf '%s\n' "url = \"$1\"" "data-binary = \"@$folder/$count.in\"" "output = \"$folder/$count.out\"" \
    "header = \"@$folder/header\"" 'header = "Content-Type: text/plain; charset=utf-8"' \
    'max-time = 60' 'retry = 3' 'silent' 'show-error' 'write-out = "%{exitcode} %{filename_effective}\n"'
done >"$folder/requests"

[ "$count" -gt 0 ] || exit 0
code=0
curl --silent --show-error --no-progress-meter --parallel --parallel-max 8 \
  --config "$folder/requests" >"$folder/ends" || code=$?
# Of an answer that broke off nothing is kept.
while read -r ended file; do [ "$ended" = 0 ] || rm -f "$file"; done <"$folder/ends"
for i in $(seq "$count"); do
  if [ -s "$folder/$i.out" ]; then cat "$folder/$i.out"; else printf '{"code": 0, "message": "no answer"}'; fi
  echo
done
exit "$code"
