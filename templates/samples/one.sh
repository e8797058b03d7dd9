# --fail-with-body ends with an error where the film is refused; the answer says why.
curl --fail-with-body -H "X-API-Key: $RESFORMER_API_KEY" \
  -F file=@film.png 'http://localhost:5000/v1/predict?preview=0'
