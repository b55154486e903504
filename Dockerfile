# gpu-nn in a container: on a GPU with `docker run --gpus all`, on the CPU without.
#   docker build -t gpu-nn .                                    CuPy for CUDA 12, its libraries from wheels
#   docker build --build-arg EXTRA=cuda13x -t gpu-nn .          for CUDA 13;  EXTRA= for the CPU alone
#   docker build --build-arg EXTRA=cuda12x,nvmath12,nccl12 …    with one graph a step, half types, and ranks on GPUs
# Any base with Python 3.11 or newer does, or with apt to install it from: Debian 12, Ubuntu 24.04 and newer.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS wheel
RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv; }
RUN python3 -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
    f"gpu_nn needs Python 3.11 or newer; this base has {sys.version.split()[0]}: choose another BASE_IMAGE")'
WORKDIR /source
COPY . .
RUN python3 -m venv /build && /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE_IMAGE}
ARG EXTRA=cuda12x
RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }
COPY --from=wheel /wheels /wheels
RUN python3 -m venv /opt/gpu_nn \
    && for wheel in /wheels/*.whl; do /opt/gpu_nn/bin/pip install --no-cache-dir "$wheel[plot,parquet${EXTRA:+,$EXTRA}]"; done \
    && rm -r /wheels \
    # Compiled kernels are kept here; any user may be given by `docker run --user`.
    && useradd --create-home gpu_nn \
    && mkdir -m 1777 /kernels \
    && mkdir /work && chown gpu_nn /work
ENV PATH=/opt/gpu_nn/bin:$PATH \
    CUPY_CACHE_DIR=/kernels \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER gpu_nn
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=30s CMD ["gpu-nn", "info"]
ENTRYPOINT ["gpu-nn"]
CMD ["--help"]
