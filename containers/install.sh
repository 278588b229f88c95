#!/bin/sh
# Build steps of the container recipes (Dockerfile and Singularity.def), selected by one argument:
#   system        packages of the distribution that are needed to build
#   runtime       packages of the distribution that are needed to run
#   dependencies  Python packages, from pyproject.toml and constraints.txt in the current folder
#   program       the program itself, from the current folder
#   models        public models named in MODELS (none by default; the program includes the bundled model), whose zips
#                 must have the digests in MODEL_SHA256 if any are given; all are converted for OpenVINO
# VARIANT is cpu or cuda; PIP_OPTIONS are further options of pip, such as the index of the CUDA builds of torch.
set -eu

PREFIX=/opt/totalspineseg
VARIANT=${VARIANT:-cpu}
PIP_OPTIONS=${PIP_OPTIONS:-}
MODELS=${MODELS:-}
MODEL_SHA256=${MODEL_SHA256:-}
PIP="$PREFIX/bin/python -m pip --no-cache-dir --disable-pip-version-check"

packages() {
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/*
}

case "$1" in
  system)
    packages ca-certificates python3 python3-venv
    ;;
  runtime)
    # libgomp1: OpenMP of torch and scipy.
    packages ca-certificates libgomp1 python3
    ;;
  dependencies)
    python3 -m venv "$PREFIX"
    "$PREFIX/bin/python" - <<'PY' > /tmp/requirements.txt
import tomllib
with open("pyproject.toml", "rb") as stream:
    print("\n".join(tomllib.load(stream)["project"]["dependencies"]))
PY
    # shellcheck disable=SC2086 # options are separate words
    $PIP install $PIP_OPTIONS -c constraints.txt -r /tmp/requirements.txt hatchling
    rm /tmp/requirements.txt
    "$PREFIX/bin/python" - "$VARIANT" <<'PY'
import sys
import torch
built = "cpu" if torch.version.cuda is None else "cuda"
if built != sys.argv[1]:
    sys.exit(f"VARIANT is {sys.argv[1]}, but the package index provides a {built} build of torch; set PIP_OPTIONS to the right index")
PY
    ;;
  program)
    $PIP install --no-deps --no-build-isolation -c constraints.txt .
    ;;
  models)
    set --
    for digest in $MODEL_SHA256; do set -- "$@" --sha256 "$digest"; done
    for model in $MODELS; do "$PREFIX/bin/totalspineseg-tools" models install "$model" "$@"; done
    # shellcheck disable=SC2086 # names are separate words
    "$PREFIX/bin/totalspineseg-tools" models convert bundled $MODELS
    mkdir -p "$TOTALSPINESEG_BIDS_MODELS"
    chmod -R a+rX "$TOTALSPINESEG_BIDS_MODELS" "$TOTALSPINESEG_BIDS_NETWORK_CACHE" "$PREFIX"
    ;;
  *)
    echo "unknown step: $1" >&2
    exit 64
    ;;
esac
