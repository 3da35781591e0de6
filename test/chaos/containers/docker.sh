#!/usr/bin/env bash
# What `npm run chaos -- --containers` needs, from Debian's packages, without any image registry. As root.
#   docker.sh up      installs what is missing, starts a Docker daemon unless one answers, and makes the base image unless it is there
#   docker.sh down    ends the daemon that `up` started; images stay
#   docker.sh clean   removes the images that this and the runs made
# Environment: DEBIAN_MIRROR, DOCKERD_ARGS, DOCKER_STATE (where the daemon's log and process number are).
set -euo pipefail
state=${DOCKER_STATE:-/run/archipelago-docker}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=bookworm
packages=ca-certificates,libstdc++6,redis-server
base=archipelago-chaos-base:$(printf '%s\n' $suite $packages | sha256sum | cut -c1-12)
say() { echo "docker.sh: $*" >&2; }
answers() { docker info >/dev/null 2>&1; }

case ${1:-} in
up) ;;
down)
  pid=$(cat "$state/dockerd.pid" 2>/dev/null) || { say "no daemon was started from here ($state/dockerd.pid is missing)"; exit 0; }
  # The number may belong to another program by now.
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
    kill "$pid"
    for _ in $(seq 300); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
    [ ! -d "/proc/$pid" ] || { say "dockerd, process $pid, did not end within 30 s; see $state/dockerd.log"; exit 1; }
  fi
  rm -f "$state/dockerd.pid"
  exit ;;
clean)
  images=$(docker image ls -q --filter reference='archipelago-chaos*' | sort -u)
  [ -z "$images" ] || docker image rm -f $images >/dev/null
  exit ;;
*) say 'up, down or clean?'; exit 2 ;;
esac

[ "$(id -u)" = 0 ] || { say 'this installs packages and starts a daemon: run it as root'; exit 1; }
mkdir -p "$state"
exec 9>"$state/lock"
flock 9
missing=()
for pair in dockerd:docker.io docker:docker.io mmdebstrap:mmdebstrap iptables:iptables nsenter:util-linux mkfs.ext4:e2fsprogs; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian's client is a package of its own from trixie on.
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  command -v apt-get >/dev/null || { say "no apt-get here: install ${missing[*]} by other means"; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  command -v docker >/dev/null || apt-get -qq install -y --no-install-recommends docker-cli >/dev/null
fi
if ! answers; then
  say 'starting dockerd'
  mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
  # The second where a file system cannot be laid over another.
  for driver in overlay2 vfs; do
    setsid nohup dockerd --storage-driver "$driver" ${DOCKERD_ARGS:-} >"$state/dockerd.log" 2>&1 9>&- </dev/null &
    pid=$!
    echo "$pid" >"$state/dockerd.pid"
    for _ in $(seq 600); do
      if answers; then break 2; fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    say "dockerd --storage-driver $driver does not answer; it says: $(tail -n 2 "$state/dockerd.log")"
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
    rm -f "$state/dockerd.pid"
  done
  answers || { say "no Docker daemon answers; see $state/dockerd.log"; exit 1; }
fi
if ! docker image inspect "$base" >/dev/null 2>&1; then
  say "making $base from Debian's packages; about a minute"
  mmdebstrap --quiet --mode=root --variant=apt --include="$packages" --aptopt='Apt::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
    "$suite" - "deb $mirror $suite main" "deb ${mirror%/debian}/debian-security $suite-security main" |
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$base" >/dev/null
fi
# By this name the runs know it.
docker tag "$base" archipelago-chaos-base:latest
