# A worker with torch. torch's wheels for Linux bring CUDA with them; the host brings the
# driver (NVIDIA container toolkit). Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t fda-worker .
# For hosts without a GPU, --build-arg TORCH_ARGS="--index-url ADDRESS-OF-CPU-WHEELS".
FROM python:3.11-slim AS build
ARG TORCH="torch>=2.6,<3"
ARG TORCH_ARGS=""
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/fda && /opt/fda/bin/pip install ${TORCH_ARGS} "${TORCH}"
COPY pyproject.toml README.md LICENSE ./
COPY fda_core ./fda_core
COPY api ./api
COPY worker ./worker
RUN /opt/fda/bin/pip install ".[engine,s3,worker,otel]"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /home/fda fda
COPY --from=build /opt/fda /opt/fda
ENV PATH=/opt/fda/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE KMP_BLOCKTIME=0 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /home/fda
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker", "--queues", "cpu", "--device", "cpu"]
