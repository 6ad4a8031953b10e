# syntax=docker/dockerfile:1
# The service in an image: `docker build -t daram .`, `docker run -p 127.0.0.1:8000:8000 -v daram:/data daram`.
# No model is in it: OPENAI_BASE_URL and DARAM_MODEL say which one to ask (docs/how-to/deploy.md).

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What is installed beside the service; add `local` for the runtime of local models.
ARG EXTRAS=serve,postgres,redis,metrics,otel,oidc
WORKDIR /build
RUN python -m venv /opt/daram
COPY pyproject.toml README.md LICENSE scripts/constraints.txt ./
COPY src ./src
RUN /opt/daram/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
    && find /opt/daram -name '*.js.map' -delete

FROM python:3.13-slim
# libgomp1: what the runtime of local models is linked with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin daram \
    && install --directory --owner=daram --group=daram --mode=0700 /data
COPY --from=build /opt/daram /opt/daram
ENV PATH=/opt/daram/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DARAM_DATA=/data \
    DARAM_HOST=0.0.0.0 \
    DARAM_PORT=8000 \
    DARAM_LOG=json
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["daram", "serve"]
