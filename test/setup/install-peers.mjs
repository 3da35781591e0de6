// Sees to the servers and clients that the tests run against and that are not ours: slapd, the OpenLDAP tools, Redis, curl, Chromium ...
// On Debian or Ubuntu as root it installs what is missing; elsewhere it says what is missing and lets the tests that need it fail.
// Plain JavaScript: `npm test` runs it before anything else, under whatever Node is there.
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';

/** Program to look for on the path, or file (a shell pattern) → Debian package that brings it. */
const peers = {
  '/usr/sbin/slapd': 'slapd',
  ldapadd: 'ldap-utils',
  '/usr/sbin/ns-slapd': '389-ds-base',
  ldapvi: 'ldapvi',
  '/usr/bin/python3': 'python3',
  '/usr/lib/python3/dist-packages/ldap3': 'python3-ldap3',
  '/usr/lib/python3/dist-packages/ldap': 'python3-ldap',
  php: 'php-cli',
  '/usr/lib/php/*/ldap.so': 'php-ldap',
  'redis-server': 'redis-server',
  '/usr/sbin/haproxy': 'haproxy',
  '/usr/sbin/dovecot': 'dovecot-imapd',
  '/usr/lib/dovecot/pop3': 'dovecot-pop3d',
  '/usr/lib/dovecot/lmtp': 'dovecot-lmtpd',
  '/usr/lib/dovecot/managesieve': 'dovecot-managesieved',
  '/usr/lib/dovecot/submission': 'dovecot-submissiond',
  '/usr/lib/dovecot/modules/auth/libauthdb_lua.so': 'dovecot-auth-lua',
  '/usr/sbin/nginx': 'nginx',
  '/usr/lib/nginx/modules/ngx_mail_module.so': 'libnginx-mod-mail',
  postmap: 'postfix',
  curl: 'curl',
  gsasl: 'gsasl',
  mbsync: 'isync',
  'sieve-connect': 'sieve-connect',
  '/usr/lib/*/sasl2/libscram.so': 'libsasl2-modules',
  // Chaos: hosts, cuts between them, volumes that can be filled and frozen.
  '/usr/sbin/ip': 'iproute2',
  '/usr/sbin/iptables': 'iptables',
  '/usr/sbin/mkfs.ext4': 'e2fsprogs',
  openssl: 'openssl',
  'systemd-notify': 'systemd',
  chromium: 'chromium',
  // The OpenLDAP tools' SASL mechanisms.
  '/usr/lib/*/sasl2/libplain.so': 'libsasl2-modules',
};

const missing = Object.entries(peers).filter(([program]) => !isHere(program));
if (missing.length > 0) {
  const packages = missing.map(([, name]) => name);
  const mayInstall = process.getuid?.() === 0 && isHere('apt-get');
  if (mayInstall) install(packages);
  const still = missing.filter(([program]) => !isHere(program));
  if (still.length > 0) {
    process.stderr.write(
      `Tests need programs that are missing: ${still.map(([program]) => program).join(', ')}.\n` +
        `${mayInstall ? 'Installing them failed; see above.' : 'This user may not install them.'} ` +
        `On Debian: apt-get install ${still.map(([, name]) => name).join(' ')}\n` +
        'The tests that need them will fail and say so.\n',
    );
  }
}

function isHere(program) {
  if (program.startsWith('/')) return spawnSync('sh', ['-c', `ls ${program}`], { stdio: 'ignore' }).status === 0;
  return spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status === 0;
}

function install(packages) {
  process.stderr.write(`Installing for the tests: ${packages.join(' ')}\n`);
  // The packages of servers start them at once; the tests start their own, on loopback, and want no other.
  const policy = '/usr/sbin/policy-rc.d';
  const hadPolicy = existsSync(policy);
  if (!hadPolicy) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const apt = (...args) => spawnSync('apt-get', args, { stdio: ['ignore', 'ignore', 'inherit'], env, timeout: 600_000 });
    apt('update', '-qq');
    apt('install', '-y', '-qq', '--no-install-recommends', ...packages);
  } finally {
    if (!hadPolicy) rmSync(policy, { force: true });
  }
}
