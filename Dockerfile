# The application for a processor, or for NVIDIA's cards:
#     docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t resformer .
#     docker run -p 127.0.0.1:5000:5000 -v "$PWD/best_model.pth:/srv/best_model.pth:ro" resformer
# By itself it serves as `python app.py` does; compose.yaml puts nginx in front, and has gunicorn behind.

FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/resformer
ENV PATH=/opt/resformer/bin:$PATH
WORKDIR /source
COPY requirements.txt .
RUN grep '^torch==' requirements.txt > torch.txt \
    && pip install --index-url "$TORCH_INDEX" --requirement torch.txt
COPY . .
RUN pip install --constraint requirements.txt ".[serve]"

FROM python:3.12-slim
COPY --from=build /opt/resformer /opt/resformer
COPY gunicorn.conf.py /srv/
ENV PATH=/opt/resformer/bin:$PATH PYTHONUNBUFFERED=1 RESFORMER_HOST=0.0.0.0
WORKDIR /srv
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=15s --start-period=60s CMD \
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://localhost:5000/readyz')"]
CMD ["python", "-m", "app"]
