# totalspineseg_bids as a BIDS App.
#   docker build -t totalspineseg-bids .
# Build arguments:
#   BASE_IMAGE   a Debian 12 (or another distribution with apt and Python 3.11 or later)
#   VARIANT      cpu or cuda: expected build of torch
#   PIP_OPTIONS  further options of pip, such as the index of those builds
#   MODELS       names of public models to include (r20251124); the bundled model is always included
#   MODEL_SHA256 digests that their zips must have; without them, any download is accepted and its digest recorded
#   SOURCE_DATE_EPOCH  time of the files, so that two builds of a commit are identical
#   VERSION, REVISION, CREATED  values of the labels
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY containers/install.sh containers/install.sh
RUN containers/install.sh system
ARG VARIANT=cpu
ARG PIP_OPTIONS=
# Dependencies come before the source, so that a change of the program does not reinstall torch.
COPY pyproject.toml ./
COPY locks locks
RUN containers/install.sh dependencies
COPY README.md LICENSE ./
COPY totalspineseg_bids totalspineseg_bids
RUN containers/install.sh program
ARG MODELS=
ARG MODEL_SHA256=
ENV TOTALSPINESEG_BIDS_MODELS=/opt/totalspineseg-models \
    TOTALSPINESEG_BIDS_NETWORK_CACHE=/opt/totalspineseg-networks
RUN containers/install.sh models
ARG SOURCE_DATE_EPOCH=0
RUN containers/install.sh finish

FROM ${BASE_IMAGE}
COPY containers/install.sh /tmp/install.sh
RUN /tmp/install.sh runtime && rm /tmp/install.sh
COPY --from=build /opt/totalspineseg /opt/totalspineseg
COPY --from=build /opt/totalspineseg-models /opt/totalspineseg-models
COPY --from=build /opt/totalspineseg-networks /opt/totalspineseg-networks

ARG VARIANT=cpu
ARG MODELS=
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="totalspineseg-bids" \
      org.opencontainers.image.description="BIDS App that segments and labels the whole spine in MRI" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.bids.app="totalspineseg-bids" \
      totalspineseg-bids.variant="${VARIANT}" \
      totalspineseg-bids.models="bundled ${MODELS}"

# The image runs with any user id and a read-only root, so that caches of libraries go to /tmp.
ENV PATH=/opt/totalspineseg/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    MPLCONFIGDIR=/tmp/.cache/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/.cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/.cache/triton \
    DENO_DIR=/tmp/.cache/deno \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LANG=C.UTF-8 \
    TOTALSPINESEG_BIDS_MODELS=/opt/totalspineseg-models \
    TOTALSPINESEG_BIDS_NETWORK_CACHE=/opt/totalspineseg-networks \
    TOTALSPINESEG_BIDS_CONTAINER_TYPE=docker \
    TOTALSPINESEG_BIDS_CONTAINER_TAG=totalspineseg-bids:${VERSION}
WORKDIR /tmp
ENTRYPOINT ["totalspineseg-bids"]
