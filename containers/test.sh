#!/usr/bin/env bash
# Build the Dockerfile without a Docker engine and run the image under the conditions of a cluster: another user id,
# read-only root and input, no network, 64 MB of shared memory, no home folder, locale C, signals. Needs root; buildah and
# debootstrap are installed with apt-get if they are missing. Run it with `make container-test`.
#   CONTAINER_WORK  folder for base, storage and logs (default: build/container of the checkout)
#   BASE_IMAGE      base to build on (default: a Debian from debootstrap, which needs no image registry)
#   SUITE           Debian release of that base (default: bookworm)
#   KEEP=1          reuse an existing image
#   SUBJECTS        synthetic subjects to run on (default: 2)
#   CLUSTER_PYTHON  run jobs of Slurm in the image instead, with this Python, which has Snakemake
#   STORAGE_DRIVER  storage driver of buildah (default: vfs, which works everywhere; overlay is faster)
set -euo pipefail
cd "$(dirname "$0")/.."

WORK=$(realpath -m "${CONTAINER_WORK:-build/container}")
SUITE=${SUITE:-bookworm}
LOCAL_BASE=localhost/debian-base:$SUITE
BASE_IMAGE=${BASE_IMAGE:-$LOCAL_BASE}
IMAGE=localhost/totalspineseg-bids:test
USER_ID=31415
SUBJECTS=${SUBJECTS:-2}
MAX_SIZE_MB=1600

say() { printf '\n== %s (%s)\n' "$1" "$(date +%H:%M:%S)"; }
fail() { echo "container-test: $1" >&2; exit 1; }
bh() { buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"; }
has_image() { bh inspect --type image "$1" >/dev/null 2>&1; }

[ "$(id -u)" = 0 ] || fail "needs root, for mounts and namespaces; run it as root or in a virtual machine"

tools() {
  local missing=()
  for tool in buildah debootstrap; do command -v "$tool" >/dev/null 2>&1 || missing+=("$tool"); done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null 2>&1 || fail "install ${missing[*]} first"
  say "Install ${missing[*]}"
  apt-get -o DPkg::Lock::Timeout=600 update -q
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends "${missing[@]}"
}

base() {
  if [ "$BASE_IMAGE" != "$LOCAL_BASE" ] || has_image "$LOCAL_BASE"; then return; fi
  say "Base: debootstrap $SUITE"
  rm -rf "$WORK/base"
  debootstrap --variant=minbase "$SUITE" "$WORK/base" >"$WORK/debootstrap.log"
  rm -rf "$WORK/base/var/cache/apt/archives/"*.deb
  local container
  container=$(bh from scratch)
  bh add -q "$container" "$WORK/base" / >/dev/null
  bh commit -q --rm "$container" "$LOCAL_BASE" >/dev/null
  rm -rf "$WORK/base"
}

# pip in the build uses the configuration of pip on the host: indexes, folders of wheels, certificates.
pip_options() {
  python3 - "$WORK/pip.conf" <<'PY'
import os, re, subprocess, sys
text = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
found = dict(re.findall(r"^(?:global|:env:|install)\.([\w-]+)='(.*)'$", text, re.MULTILINE))
lines, mounts = ["[global]"], {sys.argv[1]: "/etc/pip.conf"}
for name in ("index-url", "extra-index-url", "find-links", "trusted-host"):
    if name in found:
        lines.append(f"{name} = {found[name]}")
        for word in found[name].split():
            path = word.removeprefix("file://")
            if path.startswith("/") and os.path.exists(path):
                top = "/" + "/".join(path.strip("/").split("/")[:2])
                mounts[top] = top
if os.path.isfile(found.get("cert", "")):
    lines.append("cert = /run/host-certificates.crt")
    mounts[found["cert"]] = "/run/host-certificates.crt"
with open(sys.argv[1], "w") as stream:
    stream.write("\n".join(lines) + "\n")
for outside, inside in mounts.items():
    print(f"--volume={outside}:{inside}:ro")
PY
}

# build TAG: all times are those of the commit, so that the layers do not depend on when they are built.
build() {
  if [ -n "${KEEP:-}" ] && has_image "$1"; then return; fi
  say "Build $1 from the Dockerfile on $BASE_IMAGE"
  local options epoch
  mapfile -t options < <(pip_options)
  epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
  bh bud --isolation chroot --network host --pull=false --timestamp "$epoch" "${options[@]}" \
    --build-arg BASE_IMAGE="$BASE_IMAGE" \
    --build-arg SOURCE_DATE_EPOCH="$epoch" \
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    --build-arg CREATED="$(git log -1 --format=%cI 2>/dev/null || echo unknown)" \
    --tag "$1" --file Dockerfile . >"$WORK/build.log" 2>&1 || { tail -n 40 "$WORK/build.log" >&2; fail "build failed, see $WORK/build.log"; }
}

layers() { bh inspect --type image --format '{{range .OCIv1.RootFS.DiffIDs}}{{println .}}{{end}}' "$1"; }

reproducible() {
  build "$IMAGE-again"
  layers "$IMAGE" >"$WORK/layers.txt"
  layers "$IMAGE-again" | diff - "$WORK/layers.txt" || fail "a second build of the commit has other layers"
  echo "a second build of the commit has the same layers"
}

# in_image FOLDER_FOR_/data FOLDER_FOR_/out COMMAND...: run a command in the image.
in_image() {
  local data=$1 out=$2
  shift 2
  unshare --mount --net --ipc --uts --pid --fork bash -s -- "$ROOTFS" "$data" "$out" "$USER_ID" "$WORK/environment" "$@" <<'INNER'
set -euo pipefail
root=$1 data=$2 out=$3 user=$4 environment=$5
shift 5
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount -t tmpfs -o size=1m,mode=755 dev "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o size=64m,mode=1777 shm "$root/dev/shm"
mount -t tmpfs -o size=1g,mode=1777 tmp "$root/tmp"
mount --bind "$data" "$root/data"
mount -o remount,bind,ro "$root/data"
mount --bind "$out" "$root/out"
mapfile -t variables <"$environment"
cd "$root"
exec chroot --userspec="$user:$user" --groups="$user" "$root" /usr/bin/env -i --chdir=/tmp "${variables[@]}" "$@" </dev/null
INNER
}

start() {
  say "Image"
  CONTAINER=$(bh from --pull=false "$IMAGE")
  ROOTFS=$(bh mount "$CONTAINER")
  trap 'bh rm "$CONTAINER" >/dev/null' EXIT
  mkdir -p "$ROOTFS/data" "$ROOTFS/out" "$ROOTFS/dev" "$ROOTFS/proc" "$ROOTFS/tmp"
  bh inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$IMAGE" | grep . >"$WORK/environment"
  mapfile -t ENTRYPOINT < <(bh inspect --type image --format '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}' "$IMAGE" | grep .)
  bh inspect --type image --format '{{range $k, $v := .OCIv1.Config.Labels}}{{$k}}={{println $v}}{{end}}' "$IMAGE" | grep .
  echo "entry point: ${ENTRYPOINT[*]}"
  local size
  size=$(du -sm --apparent-size "$ROOTFS" | cut -f1)
  echo "size: $size MB unpacked"
  [ "$size" -le "$MAX_SIZE_MB" ] || fail "the image is larger than $MAX_SIZE_MB MB"
  python3 - "$ROOTFS/opt/totalspineseg/share/sbom/python.cdx.json" <<'PY' || fail "the image has no bill of materials"
import json, sys
components = json.load(open(sys.argv[1]))["components"]
print(f"bill of materials: {len(components)} Python packages")
assert {"torch", "nnunetv2", "totalspineseg-bids"} <= {component["name"] for component in components}
PY
}

# Check that the conditions hold, since the runs below rely on them.
conditions() {
  say "Conditions"
  in_image "$WORK/test/empty" "$WORK/test/out" python3 -c "
import os, pathlib
def refuses(path):
    try:
        pathlib.Path(path, 'x').write_text('x')
    except OSError:
        return True
    return False
assert os.getuid() == $USER_ID, os.getuid()
assert refuses('/') and refuses('/opt/totalspineseg') and refuses('/data') and not refuses('/tmp')
assert [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]] == ['lo']
size = os.statvfs('/dev/shm')
assert size.f_blocks * size.f_frsize == 64 * 2**20
pathlib.Path('/out/x').unlink(missing_ok=True)
print('user', os.getuid(), '- root and input read-only - no network - 64 MB of shared memory')" \
    || fail "the conditions of the test do not hold"
}

app() { in_image "$WORK/test/bids" "$WORK/test/out" "${ENTRYPOINT[@]}" "$@"; }

runs() {
  say "Versions"
  app --version
  say "Synthetic dataset"
  in_image "$WORK/test/empty" "$WORK/test/bids" totalspineseg-tools synthesize /out --subjects "$SUBJECTS" --seed 5 --fov lumbar cervical
  say "Participant level"
  app /data /out participant --model bundled
  say "Participant level again: nothing to do"
  app /data /out participant --model bundled 2>&1 | tee "$WORK/test/again.log"
  [ "$(grep -c 'complete, skipped' "$WORK/test/again.log")" = "$SUBJECTS" ] || fail "a rerun did not skip what is complete"
  say "Group level"
  app /data /out group
  say "What was written"
  (cd "$WORK/test/out" && find . -type f ! -path './logs/*' -printf '%u %m %8s %P\n' | sort -k4)
  in_image "$WORK/test/bids" "$WORK/test/out" python3 -c "
import json, pathlib
entry = json.loads(pathlib.Path('/out/dataset_description.json').read_text())['GeneratedBy'][0]
print('GeneratedBy:', json.dumps(entry))
assert entry['Container']['Type'] == 'docker' and entry['Container']['Tag'].startswith('totalspineseg-bids:')
assert all(path.stat().st_uid == $USER_ID for path in pathlib.Path('/out').rglob('*'))
assert pathlib.Path('/out/group.html').stat().st_size > 10_000"
  say "Validator"
  in_image "$WORK/test/out" "$WORK/test/scratch" bids-validator-deno --ignoreWarnings /data
}

# What users of such tools report of their machines; tests/app/test_real_machines.py has the same kinds outside containers.
machines() {
  local scratch="$WORK/test/scratch" no_home=(env -u HOME -u XDG_CACHE_HOME)
  say "User id without a name, no home folder"
  in_image "$WORK/test/bids" "$scratch" python3 -c "
import os, pwd
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    print('user', os.getuid(), 'has no name')
else:
    raise SystemExit('the user id has a name')"
  in_image "$WORK/test/bids" "$scratch" "${no_home[@]}" "${ENTRYPOINT[@]}" --version
  in_image "$WORK/test/bids" "$scratch" "${no_home[@]}" "${ENTRYPOINT[@]}" /data /out participant --model bundled --dry-run
  say "Locale C and a folder with accents"
  cp -r "$WORK/test/out" "$scratch/Universität"
  chown -R "$USER_ID:$USER_ID" "$scratch/Universität"
  in_image "$WORK/test/bids" "$scratch" env -u LANG LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 \
    "${ENTRYPOINT[@]}" /data "/out/Universität" group
  say "Signals of schedulers and terminals"
  in_image "$WORK/test/bids" "$scratch" python3 -c "
import signal, subprocess, sys, time
for name in ('SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGXCPU'):
    command = [*sys.argv[1:], '/data', '/out/' + name, 'participant', '--model', 'bundled', '--skip-bids-validation']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = next(line for line in process.stderr if line.endswith(': start\n'))
    time.sleep(3)
    process.send_signal(signal.Signals[name])
    begin = time.monotonic()
    last = process.stderr.read().splitlines()[-1]
    assert process.wait() == 75, (name, process.returncode, last)
    seconds = time.monotonic() - begin
    assert seconds <= 10 and 'stopped by ' + name in last, (name, seconds, last)
    print(f'{name}: exit code 75 after {seconds:.1f} s')" "${ENTRYPOINT[@]}"
}

# The image is a file for containers/singularity, which runs the jobs in it.
cluster() {
  say "Jobs of Slurm in the image"
  { echo "$ROOTFS"; cat "$WORK/environment"; } >"$WORK/totalspineseg-bids.sif"
  PATH="$PWD/containers:$PATH" "$CLUSTER_PYTHON" benchmarks/run_on_slurm.py --participants 4 --container "$WORK/totalspineseg-bids.sif"
}

mkdir -p "$WORK"
tools
base
build "$IMAGE"
[ -n "${SKIP_REBUILD:-}" ] || reproducible
rm -rf "$WORK/test"
mkdir -p "$WORK/test/"{empty,bids,out,scratch}
chown "$USER_ID:$USER_ID" "$WORK/test/"{bids,out,scratch}
start
if [ -n "${CLUSTER_PYTHON:-}" ]; then cluster; else conditions; runs; machines; fi
say "container-test: passed"
