# A lab. From the project's root:
#   docker build --file deploy/lab.Dockerfile --tag crossply-lab .
# torch's CUDA build brings its own libraries: with the NVIDIA container toolkit on the host,
# `docker run --gpus all` is all that a GPU needs.
FROM python:3.11.14-slim-bookworm

ENV FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CROSSPLY_LAB_STATE=/state/membership \
    CROSSPLY_CACHE=/cache

WORKDIR /opt/crossply
COPY pyproject.toml constraints.txt README.md crossply.py ./
COPY common common
COPY client client
COPY server server
COPY simulation simulation
# OpenCV's wheel draws windows too, and does not start without these
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && useradd --uid 10001 --create-home crossply \
    && install --directory --owner crossply --mode 0700 /state /cache

USER 10001
# the key and the log; the features; the lab's own data, to be mounted read-only at /data
VOLUME ["/state", "/cache"]
# no port: a lab opens one connection outwards, and nobody connects to it
STOPSIGNAL SIGTERM
ENTRYPOINT ["crossply"]
CMD ["lab", "start", "--forever", "--log-json"]
