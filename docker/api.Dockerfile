# The api and the controller: no torch, no GPU. Build from the repository's root:
#   docker build -f docker/api.Dockerfile -t fda-api .
FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/fda
COPY pyproject.toml README.md LICENSE ./
COPY fda_core ./fda_core
COPY api ./api
COPY worker ./worker
RUN /opt/fda/bin/pip install ".[api,otel]"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /home/fda fda
COPY --from=build /opt/fda /opt/fda
ENV PATH=/opt/fda/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /home/fda
EXPOSE 8080
STOPSIGNAL SIGTERM
CMD ["python", "-m", "api"]
