# Each result says whose it is, by index and name.
curl --fail-with-body -H "X-API-Key: $RESFORMER_API_KEY" \
  -F files=@first.png -F files=@second.dcm \
  'http://localhost:5000/v1/predict/batch?preview=0'
