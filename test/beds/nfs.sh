#!/usr/bin/env bash
# Real NFSv4.2, the kernel's server and two separate kernel clients, on a machine whose own kernel has none of it: boots Debian's user-mode
# Linux (an ordinary process, no KVM), exports an ext4 image, mounts it from two network namespaces, which makes two NFS clients, and runs a
# program of this project over both mounts for each set of mount options. Root; Debian's packages (install.mjs).
#   nfs.sh DIR PROGRAM OPTIONS...    PROGRAM: path below the project; it is given "/mnt/c1 /mnt/c2 OPTIONS"
# DIR keeps the guest's root file system (about 400 MB), so only the first run is slow: about a minute, then a quarter of one.
# Environment: NODE (a Node 24 binary), UML_MEM (1024M), UML_DISK_MB (512), UML_TIMEOUT (280 s), DEBIAN_MIRROR.
set -euo pipefail
dir=${1:?directory}; program=${2:?program}; shift 2
here=$(cd "$(dirname "$0")" && pwd); project=$(cd "$here/../.." && pwd); mkdir -p "$dir"; dir=$(cd "$dir" && pwd); root=$dir/root
if [ ! -e "$root/.ready" ]; then
  rm -rf "$root"
  mmdebstrap --quiet --mode=root --variant=apt --include=mount,util-linux,rpcbind,nfs-kernel-server,nfs-common,iproute2,kmod,procps,libstdc++6 \
    --aptopt='Apt::Install-Recommends "false"' bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
  mkdir -p "$root/lib/modules" "$root/srv/exp" "$root/mnt/c1" "$root/mnt/c2" "$root/opt/project"
  cp -r /usr/lib/uml/modules/* "$root/lib/modules/"; touch "$root/.ready"
fi
cp "$(readlink -f "${NODE:?path of a Node 24 binary}")" "$root/opt/node"
{
  echo '#!/bin/sh'; echo 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root'
  echo "project=$project"
  cat <<'INIT'
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs t /run; mount -t tmpfs t /tmp; mount -t tmpfs t /var/lib/nfs
mount -t hostfs -o "$project" none /opt/project
ip link set lo up; for m in nfsd nfs nfsv4; do modprobe $m; done
mount -t nfsd nfsd /proc/fs/nfsd; mkdir -p /var/lib/nfs/v4recovery /run/rpc_pipefs; touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t rpc_pipefs p /run/rpc_pipefs; mount /dev/ubda /srv/exp
echo '/srv/exp *(rw,sync,fsid=0,no_root_squash,no_subtree_check,insecure)' > /etc/exports
rpcbind -w || rpcbind; exportfs -ra; echo 3 > /proc/fs/nfsd/nfsv4gracetime; rpc.nfsd -V 4 -N 3 4; rpc.mountd
for i in 1 2; do ip netns add c$i; ip link add v$i type veth peer name eth0 netns c$i; ip addr add 198.18.$i.1/24 dev v$i; ip link set v$i up; ip -n c$i addr add 198.18.$i.2/24 dev eth0; ip -n c$i link set eth0 up; ip -n c$i link set lo up; done
client() { nsenter --net=/run/netns/c$1 unshare -u sh -c "hostname client$1; mount -t nfs4 -o vers=4.2,hard,nosharecache,$2 198.18.$1.1:/ /mnt/c$1"; }
try() { client 1 $1 && client 2 $1 && /opt/node /opt/project/$program /mnt/c1 /mnt/c2 $1; umount /mnt/c2 /mnt/c1; }
INIT
  echo "program=$program"
  for options in "$@"; do echo "try $options"; done
  echo 'echo UML DONE; sync; echo o > /proc/sysrq-trigger; while :; do sleep 1; done'
} > "$root/init.sh"; chmod +x "$root/init.sh"
dd if=/dev/zero of="$dir/disk.img" bs=1M count=0 seek="${UML_DISK_MB:-512}" status=none; mkfs.ext4 -q -F "$dir/disk.img"
gcc -shared -fPIC -O2 -o "$dir/xstate.so" "$here/xstate.c" -ldl
LD_PRELOAD=$dir/xstate.so timeout -k 5 "${UML_TIMEOUT:-280}" linux.uml mem="${UML_MEM:-1024M}" root=/dev/root rootfstype=hostfs rootflags="$root" rw \
  ubd0="$dir/disk.img" init=/init.sh con=null con0=null,fd:1 quiet </dev/null 2>&1 | tee "$dir/uml.log"
grep -q 'UML DONE' "$dir/uml.log"
