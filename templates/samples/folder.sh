# One line for each film: its name, a tab, and the answer or what was wrong. curl tries again
# after the number of seconds that a busy server names (429 and 503 with Retry-After).
for film in films/*; do
  printf '%s\t' "$film"
  curl --silent --show-error --retry 6 --output answer.json \
    -H "X-API-Key: $RESFORMER_API_KEY" -F "file=@\"$film\"" \
    'http://localhost:5000/v1/predict?preview=0' && cat answer.json || echo
done > results.tsv
