#!/bin/sh
# Build steps of the container recipes (Dockerfile and Singularity.def), selected by one argument:
#   system        packages of the distribution that are needed to build
#   runtime       packages of the distribution that are needed to run
#   dependencies  Python packages with the versions and hashes of locks/ in the current folder
#   program       the program itself, from the current folder
#   models        public models named in MODELS (none by default; the program includes the bundled model), whose zips
#                 must have the digests in MODEL_SHA256 if any are given; all are converted for OpenVINO
#   finish        bill of materials, licences; removal of what no run needs; the same bytes for every build
# VARIANT is cpu or cuda; PIP_OPTIONS are further options of pip, such as the index of the CUDA builds of torch.
# SOURCE_DATE_EPOCH is the time of all files of the image, in seconds since 1970.
set -eu

PREFIX=/opt/totalspineseg
VARIANT=${VARIANT:-cpu}
PIP_OPTIONS=${PIP_OPTIONS:-}
MODELS=${MODELS:-}
MODEL_SHA256=${MODEL_SHA256:-}
# Tools of the build (hatchling, cyclonedx-bom) are not part of the image.
TOOLS=/opt/build-tools
PIP="$PREFIX/bin/python -m pip --no-cache-dir --disable-pip-version-check"
TOOLS_PIP="$TOOLS/bin/python -m pip --no-cache-dir --disable-pip-version-check"

packages() {
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/*
}

case "$1" in
  system)
    packages binutils ca-certificates python3 python3-venv
    ;;
  runtime)
    # libgomp1: OpenMP of torch and scipy.
    packages ca-certificates libgomp1 python3
    # Logs and caches of the package manager differ between builds.
    rm -rf /var/log/* /var/cache/* /var/lib/apt/lists/* /var/lib/dpkg/*-old /etc/machine-id
    rm -rf /usr/share/man /usr/share/locale /usr/share/info
    find /usr/share/doc -type f ! -name copyright -delete
    ;;
  dependencies)
    python3 -m venv "$PREFIX"
    python3 -m venv "$TOOLS"
    case "$VARIANT-$(uname -m)" in
      cpu-x86_64) lock=locks/cpu-linux-x86_64.txt ;;
      *) lock=locks/requirements.txt ;;
    esac
    # shellcheck disable=SC2086 # options are separate words
    $PIP install $PIP_OPTIONS --no-compile --no-deps --require-hashes -r "$lock"
    # shellcheck disable=SC2086
    $TOOLS_PIP install $PIP_OPTIONS --require-hashes -r locks/build.txt
    "$PREFIX/bin/python" - "$VARIANT" <<'PY'
import sys
import torch
built = "cpu" if torch.version.cuda is None else "cuda"
if built != sys.argv[1]:
    sys.exit(f"VARIANT is {sys.argv[1]}, but the package index provides a {built} build of torch; set PIP_OPTIONS to the right index")
PY
    ;;
  program)
    $TOOLS_PIP wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheels .
    $PIP install --no-deps --no-compile /tmp/wheels/*.whl
    rm -rf /tmp/wheels
    ;;
  models)
    set --
    for digest in $MODEL_SHA256; do set -- "$@" --sha256 "$digest"; done
    for model in $MODELS; do "$PREFIX/bin/totalspineseg-tools" models install "$model" "$@"; done
    # shellcheck disable=SC2086 # names are separate words
    "$PREFIX/bin/totalspineseg-tools" models convert bundled $MODELS
    mkdir -p "$TOTALSPINESEG_BIDS_MODELS"
    ;;
  finish)
    mkdir -p "$PREFIX/share/sbom"
    "$TOOLS/bin/cyclonedx-py" environment "$PREFIX/bin/python" --output-reproducible \
      --output-file "$PREFIX/share/sbom/python.cdx.json"
    dpkg-query --show --showformat '${Package} ${Version}\n' >"$PREFIX/share/sbom/debian-build.txt"
    site=$("$PREFIX/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    $PIP uninstall --yes --quiet pip
    find "$PREFIX" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
    rm -rf "$site"/torch/include "$site"/torch/test "$site"/torch/share
    # torch does not start without its manager of shared memory.
    find "$site"/torch/bin -type f ! -name torch_shm_manager -delete
    # OpenVINO runs networks that torch converts, on the CPU.
    for part in intel_gpu intel_npu tensorflow tensorflow_lite paddle onnx jax gguf; do
      rm -f "$site"/openvino/libs/libopenvino_"$part"_*.so*
    done
    rm -f "$site"/openvino/libs/cache.json
    find "$PREFIX" -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.hpp' \) -delete
    # Symbols for debuggers. Libraries that were changed after linking, as in numpy.libs, do not survive strip.
    find "$site"/torch/lib -type f -name 'libtorch*.so*' -exec strip --strip-unneeded {} ';'
    # Compiled are the modules that a run imports; those of all packages would take 200 MB. The compiled files name the
    # hash of their source instead of its time, which differs between builds.
    work=$(mktemp -d)
    for command in "synthesize $work/bids --subjects 1 --fov lumbar" participant group; do
      case "$command" in
        synthesize*) set -- "$PREFIX/bin/totalspineseg-tools" $command ;;
        *) set -- "$PREFIX/bin/totalspineseg-bids" "$work/bids" "$work/out" "$command" --model bundled ;;
      esac
      env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$work/pyc" "$@" >/dev/null
    done
    (cd "$work/pyc" && find . -name '*.pyc') | sed -nE "s,^\.($PREFIX/.*)\.cpython-[0-9]+\.pyc\$,\1.py,p" >"$work/modules"
    PYTHONDONTWRITEBYTECODE=1 "$PREFIX/bin/python" -m compileall -q -i "$work/modules" --invalidation-mode unchecked-hash
    rm -rf "$work"
    chmod -R a+rX "$TOTALSPINESEG_BIDS_MODELS" "$TOTALSPINESEG_BIDS_NETWORK_CACHE" "$PREFIX"
    find "$PREFIX" "$TOTALSPINESEG_BIDS_MODELS" "$TOTALSPINESEG_BIDS_NETWORK_CACHE" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +
    ;;
  *)
    echo "unknown step: $1" >&2
    exit 64
    ;;
esac
