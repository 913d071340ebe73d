# cellrt for x86-64 with a GPU of NVIDIA, whose driver is 580 or newer, or without one:
#
#     docker build -f deploy/cuda.Dockerfile --build-arg UID="$(id -u)" -t cellrt .
#
# docs/unattended.md tells how to run it. All of CUDA but the driver comes with pip.
ARG BASE=debian:bookworm-20260824-slim
FROM ${BASE} AS install
# Debian keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/cellrt
WORKDIR /source
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY cellrt cellrt
# Another extra of docs/engines.md, such as tensorrt-rtx or cuda,zarr.
ARG EXTRA=cuda
RUN /opt/cellrt/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRA}]"

# hadolint ignore=DL3006
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=install /opt/cellrt /opt/cellrt
COPY deploy/warm /usr/local/bin/cellrt-warm

# Who runs it: whoever owns the stacks, so that the results are theirs.
ARG UID=1000
RUN useradd --uid "${UID}" --user-group --no-create-home --home-dir /nonexistent cellrt \
    && install -d -o "${UID}" -g "${UID}" /var/cache/cellrt /data
# Kernels are compiled for every processor that OpenVINO runs on, not for the one that builds the image:
# another one would find none, and compile them again in every run.
ENV PATH=/opt/cellrt/bin:$PATH \
    NUMBA_CACHE_DIR=/var/cache/cellrt/kernels \
    NUMBA_CPU_NAME=x86-64-v2 \
    NUMBA_CPU_FEATURES="" \
    CELLRT_ENGINES=/var/cache/cellrt/engines \
    CUDA_CACHE_PATH=/var/cache/cellrt/cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER ${UID}:${UID}
RUN cellrt-warm
VOLUME /var/cache/cellrt
WORKDIR /data
ENTRYPOINT ["cellrt"]
CMD ["--help"]
