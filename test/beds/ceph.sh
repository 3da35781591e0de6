#!/usr/bin/env bash
# A one-machine Ceph on loopback, in memory: CephFS for ceph-fuse, and radosgw as S3. Root; Debian's packages (install.mjs). 0.7 GiB of memory.
#   ceph.sh up DIR            S3 at http://127.0.0.1:17480, keys testkey / testsecret
#   ceph.sh bucket DIR NAME   makes a bucket
#   ceph.sh mount DIR N       mounts as the N-th client at DIR/mN; each is a client of its own
#   ceph.sh down DIR          unmounts, ends what was started for DIR
# Its ports are fixed: one at a time. Environment: S3_PORT (17480), CEPH_BYTES (size of the store, 2 GiB).
set -euo pipefail
cmd=${1:?up, bucket, mount or down}; D=$(mkdir -p "${2:?directory}" && cd "$2" && pwd); conf=$D/ceph.conf
C=(-c "$conf")
case $cmd in
down)
  for m in "$D"/m[0-9]*; do mountpoint -q "$m" && umount -l "$m"; done
  for p in $(pgrep -f -- "-c $conf" || true); do kill -9 "$p" 2>/dev/null || true; done; exit ;;
bucket)
  # radosgw wants the hash of the body as a header; curl signs it but does not send it by itself.
  exec curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --user testkey:testsecret -X PUT "http://127.0.0.1:${S3_PORT:-17480}/$3" ;;
mount) mkdir -p "$D/m$3"; exec ceph-fuse "${C[@]}" -n client.admin --pid-file="$D/run/client$3.pid" "$D/m$3" ;;
up) ;;
*) echo "unknown command $cmd" >&2; exit 2 ;;
esac
fsid=$(cat /proc/sys/kernel/random/uuid); osd=$(cat /proc/sys/kernel/random/uuid)
rm -rf "$D"/{run,mon,mgr,osd,mds,log,keyring,monmap}; mkdir -p "$D"/{run,mon,mgr,osd,mds,log}
cat >"$conf" <<CONF
[global]
fsid = $fsid
mon host = v2:127.0.0.1:33300,v1:127.0.0.1:36789
mon initial members = a
public addr = 127.0.0.1
ms bind ipv6 = false
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 2
osd objectstore = memstore
memstore device bytes = ${CEPH_BYTES:-2147483648}
run dir = $D/run
admin socket = $D/run/\$cluster-\$name.\$pid.asok
pid file = $D/run/\$name.pid
log file = $D/log/\$name.log
keyring = $D/keyring
mon data = $D/mon
mgr data = $D/mgr
osd data = $D/osd
mds data = $D/mds
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:${S3_PORT:-17480}
rgw enable apis = s3
rgw thread pool size = 16
CONF
ceph-authtool --create-keyring "$D/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
for e in client.admin osd.0 mgr.x mds.m client.rgw; do ceph-authtool "$D/keyring" --gen-key -n $e --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *' >/dev/null; done
monmaptool --create --clobber --fsid "$fsid" --addv a '[v2:127.0.0.1:33300,v1:127.0.0.1:36789]' "$D/monmap" >/dev/null
ceph-mon "${C[@]}" -i a --mkfs --monmap "$D/monmap" --keyring "$D/keyring"
ceph-mon "${C[@]}" -i a
timeout 60 ceph "${C[@]}" auth import -i "$D/keyring" 2>/dev/null
ceph-mgr "${C[@]}" -i x
timeout 60 ceph "${C[@]}" osd new "$osd" >/dev/null
ceph-osd "${C[@]}" -i 0 --mkfs --osd-uuid "$osd" >/dev/null 2>&1
ceph-osd "${C[@]}" -i 0 >/dev/null 2>&1
ceph-mds "${C[@]}" -i m >/dev/null
for pool in meta data; do timeout 60 ceph "${C[@]}" osd pool create $pool 8 >/dev/null 2>&1; done
timeout 60 ceph "${C[@]}" fs new cephfs meta data >/dev/null 2>&1
for _ in $(seq 100); do timeout 20 ceph "${C[@]}" mds stat 2>/dev/null | grep -q up:active && break; sleep 0.2; done
radosgw "${C[@]}" -n client.rgw
for _ in $(seq 300); do curl -s -o /dev/null "http://127.0.0.1:${S3_PORT:-17480}/" && break; sleep 0.2; done
radosgw-admin "${C[@]}" user create --uid=test --display-name=test --access-key=testkey --secret-key=testsecret >/dev/null 2>&1
echo "S3 http://127.0.0.1:${S3_PORT:-17480}"
