// Installs what the real storage of these tests is made of: Ceph and user-mode Linux, from Debian's packages, as root. The daemons are not
// started by it; the tests start their own, on loopback.
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';

const packages = {
  'ceph-mon': 'ceph-mon',
  'ceph-mgr': 'ceph-mgr',
  'ceph-osd': 'ceph-osd',
  'ceph-mds': 'ceph-mds',
  radosgw: 'radosgw',
  'ceph-fuse': 'ceph-fuse',
  ceph: 'ceph-common',
  curl: 'curl',
  'linux.uml': 'user-mode-linux',
  mmdebstrap: 'mmdebstrap',
  'mkfs.ext4': 'e2fsprogs',
  gcc: 'gcc libc6-dev',
};

const isHere = (program) => spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin:/sbin command -v ${program}`], { stdio: 'ignore' }).status === 0;
const missing = Object.entries(packages).filter(([program]) => !isHere(program));
if (missing.length > 0) {
  const wanted = missing.flatMap(([, names]) => names.split(' '));
  if (process.getuid?.() !== 0 || !isHere('apt-get')) {
    process.stderr.write(`These tests need root and Debian's packages ${wanted.join(' ')}.\n`);
    process.exit(1);
  }
  process.stderr.write(`Installing for the tests: ${wanted.join(' ')}\n`);
  const policy = '/usr/sbin/policy-rc.d';
  const hadPolicy = existsSync(policy);
  if (!hadPolicy) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const apt = (...args) => spawnSync('apt-get', args, { stdio: ['ignore', 'ignore', 'inherit'], env, timeout: 900_000 });
    apt('update', '-qq');
    if (apt('install', '-y', '-qq', '--no-install-recommends', ...wanted).status !== 0) process.exitCode = 1;
  } finally {
    if (!hadPolicy) rmSync(policy, { force: true });
  }
}
