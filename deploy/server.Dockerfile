# The coordinator. From the project's root:
#   docker build --file deploy/server.Dockerfile --tag crossply-server .
# It only ever sees messages: no GPU is needed, and torch's CPU build would do.
FROM python:3.11.14-slim-bookworm

ENV FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CROSSPLY_SERVER_STATE=/state/federation

WORKDIR /opt/crossply
COPY pyproject.toml constraints.txt README.md crossply.py ./
COPY common common
COPY client client
COPY server server
COPY simulation simulation
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && useradd --uid 10001 --create-home crossply \
    && install --directory --owner crossply --mode 0700 /state

USER 10001
VOLUME /state
EXPOSE 9443
# "running" is whether the process that holds the state folder lives
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["sh", "-c", "crossply server status --json | grep --quiet '\"running\": true'"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["crossply"]
CMD ["server", "start", "--wait", "7 days", "--log-json"]
