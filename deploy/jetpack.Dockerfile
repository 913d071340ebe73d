# cellrt for a Jetson. JetPack 6 (Orin), built on the Jetson itself:
#
#     docker build -f deploy/jetpack.Dockerfile --build-arg UID="$(id -u)" -t cellrt .
#
# JetPack 7 takes NVIDIA's images for all ARM machines:
#
#     docker build -f deploy/jetpack.Dockerfile --build-arg UID="$(id -u)" -t cellrt \
#       --build-arg BASE=nvcr.io/nvidia/tensorrt:25.08-py3 --build-arg EXTRA=cu13 .
#
# docs/unattended.md tells how to run it. CUDA and TensorRT are those of the base image.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
# The versions are those of the base image's system.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
# TensorRT is one of the system's packages. It is only looked for, as it loads libraries of the driver,
# which an image is built without.
RUN /usr/bin/python3 -m venv --system-site-packages /opt/cellrt \
    && /opt/cellrt/bin/python -c "from importlib.util import find_spec as find; \
exit(None if find('tensorrt') else 'the base image has no TensorRT for its Python')"
WORKDIR /source
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY cellrt cellrt
# cu12 for JetPack 6, cu13 for JetPack 7.
ARG EXTRA=cu12
RUN /opt/cellrt/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRA}]"
COPY deploy/warm /usr/local/bin/cellrt-warm

# Who runs it: whoever owns the stacks, so that the results are theirs. The images of JetPack 7 have a
# user 1000 of their own.
ARG UID=1000
RUN install -d -o "${UID}" -g "${UID}" /var/cache/cellrt /data
# Kernels are compiled for every ARM processor, not for the one that builds the image.
ENV PATH=/opt/cellrt/bin:$PATH \
    HOME=/nonexistent \
    NUMBA_CACHE_DIR=/var/cache/cellrt/kernels \
    NUMBA_CPU_NAME=generic \
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
