/**
 * What must hold between options, which no schema can say. Each rule passes over options that are missing or of a wrong type: those
 * have been reported already.
 */
import { isIP } from 'node:net';
import { tryParseDomainName } from '#common/account-name.ts';
import { type Mistake, type Path, pathText, shown } from '#common/config/schema-check.ts';
import { isAddressOrRange } from '#common/network/address-list.ts';

type Group = Readonly<Record<string, unknown>>;
type Report = (path: Path, message: string, atKey?: boolean) => void;

/** All rules over a whole node file. */
export function checkRelations(file: Group): Mistake[] {
  const mistakes: Mistake[] = [];
  const report: Report = (path, message, atKey = false) => mistakes.push({ path, atKey, message });
  checkAdmin(file.admin, report);
  const taken = new Map<string, string>();
  const names = new Map<string, string>();
  claimAddress(file.admin, ['admin'], taken, report);
  for (const [index, service] of listOf(file.services).entries()) {
    if (!isGroup(service)) continue;
    const path = ['services', index];
    checkName(service, path, names, report);
    for (const listener of [
      { value: service.listen, path: [...path, 'listen'] },
      { value: service.sharing, path: [...path, 'sharing'] },
      ...listenersOf(service, path),
    ]) {
      claimAddress(listener.value, listener.path, taken, report);
    }
    roleRules[String(service.role)]?.(service, path, report);
  }
  checkSecretSources(file, [], report);
  return mistakes;
}

const roleRules: Record<string, (service: Group, path: Path, report: Report) => void> = {
  frontend(service, path, report) {
    checkListenersTls(service, path, report);
    for (const { value, path: at } of listenersOf(service, path)) {
      if (isGroup(value) && value.protocol === 'http' && value.tls === 'starttls') {
        report([...at, 'tls'], '"starttls" is not known to http; set tls: implicit, or tls: none');
      }
    }
    checkFrontendListeners(service, path, report);
    for (const key of ['domains', 'accounts', 'storage', 'coordinator']) {
      if (service[key] !== undefined) {
        report(
          [...path, key],
          'is not a frontend’s: it serves no domain itself. Let the accounts’ hostServer name a cluster; a node that shall be frontend and member has a service of role backend-cluster beside this one',
          true,
        );
      }
    }
    const sharing = isGroup(service.sharing) ? service.sharing : {};
    if (service.link === undefined && isText(sharing.address) && !isLoopback(sharing.address)) {
      report(
        [...path, 'link'],
        `is missing: sharing listens on ${sharing.address}, which is not loopback, and must run under mutual TLS`,
        true,
      );
    }
    checkDomain(service.defaultDomain, [...path, 'defaultDomain'], report);
    checkForeignClusters(service, path, report);
    checkOAuth(service.oauth, [...path, 'oauth'], report);
    checkDirectoryAccess(service, path, report);
  },
  'backend-cluster'(service, path, report) {
    const { heartbeatMs, leaseMs } = service;
    if (isNumber(heartbeatMs) && isNumber(leaseMs) && leaseMs <= 3 * heartbeatMs) {
      report(
        [...path, 'leaseMs'],
        `${leaseMs} is not more than three heartbeats (heartbeatMs is ${heartbeatMs}); a lost packet or two would cost the member its lease`,
      );
    }
    if (isText(service.name) && tryParseDomainName(service.name) !== undefined && service.name.split('.').length < 3) {
      report(
        [...path, 'name'],
        `${shown(service.name)} has no label before its cluster’s name; expected member.cluster, e.g. back1.west.isp.example`,
      );
    }
    checkStorage(service.storage, [...path, 'storage'], report);
    const coordinator = isGroup(service.coordinator) ? service.coordinator : {};
    if (coordinator.engine === 'socket' && coordinator.path === undefined) {
      report([...path, 'coordinator', 'path'], 'is missing: engine socket needs the path of the Unix socket', true);
    }
    if (coordinator.engine === 'redis' && coordinator.url === undefined) {
      report([...path, 'coordinator', 'url'], 'is missing: engine redis needs a redis:// URL', true);
    }
    if (
      coordinator.engine === 'redis' &&
      isText(coordinator.url) &&
      !/^rediss?(?:-sentinel|-cluster)?:\/\/(?:[^:@/]*@)?[^@/]+(?:\/[^@/]*)?$/.test(coordinator.url)
    ) {
      // Not shown: it may hold a password, which is a mistake of its own.
      report(
        [...path, 'coordinator', 'url'],
        'is not redis://host:port, redis-sentinel://host:port,host:port/name or redis-cluster://host:port,host:port; a password is named under coordinator.password',
      );
    }
    if (isText(service.advertise) && !/^.+:\d{1,5}$/.test(service.advertise)) {
      report([...path, 'advertise'], `${shown(service.advertise)} is not host:port`);
    }
    for (const [index, address] of listOf(service.clusterNetwork).entries()) {
      if (isText(address) && !isAddressOrRange(address)) {
        report([...path, 'clusterNetwork', index], `${shown(address)} is not an IP address or a range such as 10.1.0.0/16`);
      }
    }
    const listen = isGroup(service.listen) ? service.listen : {};
    if (service.link === undefined && isText(listen.address) && !isLoopback(listen.address)) {
      report(
        [...path, 'link'],
        `is missing: the link listens on ${listen.address}, which is not loopback, and must run under mutual TLS`,
        true,
      );
    }
    checkOAuth(service.oauth, [...path, 'oauth'], report);
    checkDirectoryAccess(service, path, report);
  },
  directory(service, path, report) {
    checkListenersTls(service, path, report);
    if (service.mode === 'replica' && service.master === undefined) {
      report([...path, 'master'], 'is missing: a replica needs the URL of its master, to refer writers to', true);
    }
    if (service.mode === 'master' && service.master !== undefined) {
      report([...path, 'master'], 'is not for a master; remove it, or set mode: replica', true);
    }
    checkUrl(service.master, ['ldap:', 'ldaps:'], [...path, 'master'], report);
  },
  replication(service, path, report) {
    const servers = [
      { server: service.master, path: [...path, 'master'] },
      ...listOf(service.replicas).map((server, index) => ({ server, path: [...path, 'replicas', index] })),
    ];
    checkWrittenServers(servers, report);
    if (isText(service.verifySchedule) && !/^\S+(?:\s+\S+){4,5}$/.test(service.verifySchedule.trim())) {
      report(
        [...path, 'verifySchedule'],
        `${shown(service.verifySchedule)} is not a cron expression of five or six fields, e.g. "17 3 * * *"`,
      );
    }
  },
};

/** Tokens are verified in one way, and what that takes is there. */
function checkOAuth(oauth: unknown, path: Path, report: Report): void {
  if (!isGroup(oauth)) return;
  const ways = ['jwksFile', 'jwksUrl', 'introspectionUrl'].filter((key) => oauth[key] !== undefined);
  if (ways.length !== 1) {
    const seen = ways.length === 0 ? 'none is' : `${ways.join(', ')} are`;
    report(path, `exactly one of jwksFile, jwksUrl, introspectionUrl says how tokens are verified; ${seen} set`, true);
  }
  for (const key of ['clientId', 'clientSecret']) {
    if (ways.includes('introspectionUrl') && oauth[key] === undefined)
      report([...path, key], 'is missing: introspectionUrl needs it', true);
  }
  for (const key of ['jwksUrl', 'introspectionUrl', 'configurationUrl']) checkUrl(oauth[key], ['https:', 'http:'], [...path, key], report);
  for (const key of ['jwksUrl', 'introspectionUrl']) {
    const url = oauth[key];
    if (!isText(url) || !URL.canParse(url)) continue;
    const { protocol, hostname } = new URL(url);
    if (protocol === 'http:' && !isLoopback(hostname.replace(/^\[|\]$/g, ''))) {
      report([...path, key], `${shown(url)} is in clear: whoever is on the way could answer in its name; use https`);
    }
  }
  checkDomain(oauth.domain, [...path, 'domain'], report);
}

const storageKeys: Readonly<Record<string, { readonly needed: readonly string[]; readonly optional: readonly string[] }>> = {
  posix: { needed: ['path'], optional: [] },
  s3: { needed: ['endpoint', 'bucket', 'accessKeyId', 'secretAccessKey'], optional: ['region', 'prefix', 'caFile'] },
};

/** Each engine has keys of its own: those it needs must be there, those of the other must not. */
function checkStorage(storage: unknown, path: Path, report: Report): void {
  if (!isGroup(storage)) return;
  const engine = storage.engine === undefined ? 'posix' : String(storage.engine);
  const own = storageKeys[engine];
  if (own === undefined) return;
  for (const key of own.needed) {
    if (storage[key] === undefined) report([...path, key], `is missing: engine ${engine} needs it`, true);
  }
  for (const [other, { needed, optional }] of Object.entries(storageKeys)) {
    if (other === engine) continue;
    for (const key of [...needed, ...optional]) {
      if (storage[key] !== undefined) report([...path, key], `is for engine ${other}; remove it, or set engine: ${other}`);
    }
  }
  checkUrl(storage.endpoint, ['https:', 'http:'], [...path, 'endpoint'], report);
  if (isText(storage.endpoint) && URL.canParse(storage.endpoint) && new URL(storage.endpoint).pathname !== '/') {
    report([...path, 'endpoint'], `${shown(storage.endpoint)} has a path; give the bucket as bucket: and the rest as prefix:`);
  }
  if (isText(storage.bucket) && !/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(storage.bucket)) {
    report([...path, 'bucket'], `${shown(storage.bucket)} is not a bucket’s name: 3 to 63 of lower-case letters, digits, dots and hyphens`);
  }
}

function checkAdmin(admin: unknown, report: Report): void {
  if (!isGroup(admin)) return;
  if (isText(admin.address) && !isLoopback(admin.address) && admin.tls === undefined) {
    report(['admin', 'tls'], `is missing: the admin API listens on ${admin.address}, which is not loopback, and must run under TLS`, true);
  }
  checkDirectoryAccess(admin, ['admin'], report);
  for (const [index, peer] of listOf(admin.peers).entries()) {
    if (isGroup(peer)) checkUrl(peer.url, ['http:', 'https:'], ['admin', 'peers', index, 'url'], report);
  }
}

function checkName(service: Group, path: Path, names: Map<string, string>, report: Report): void {
  if (!isText(service.name)) return;
  if (tryParseDomainName(service.name) === undefined || !service.name.includes('.')) {
    report([...path, 'name'], `${shown(service.name)} is not a full server name; expected a name such as front1.eu.isp.example`);
    return;
  }
  const other = names.get(service.name.toLowerCase());
  if (other !== undefined) report([...path, 'name'], `${shown(service.name)} is already the name of ${other}`);
  names.set(service.name.toLowerCase(), pathText(path));
}

/** A master user has a name and a password, and nobody else has. */
function checkForeignClusters(service: Group, path: Path, report: Report): void {
  for (const [index, cluster] of listOf(service.foreignClusters).entries()) {
    if (!isGroup(cluster)) continue;
    const at = [...path, 'foreignClusters', index];
    checkDomain(cluster.name, [...at, 'name'], report);
    for (const key of ['masterUser', 'masterPassword']) {
      if (cluster.login === 'master-user' && cluster[key] === undefined) {
        report([...at, key], 'is missing: login master-user needs masterUser and masterPassword', true);
      }
      if (cluster.login !== 'master-user' && cluster[key] !== undefined) {
        report([...at, key], 'is not used with login: passed; remove it, or set login: master-user', true);
      }
    }
  }
}

/** What only some protocols have: elsewhere it would look as if it were obeyed. */
const listenerKeys: Record<string, readonly string[]> = {
  proxyFrom: ['imap', 'pop3', 'managesieve', 'smtp', 'submission', 'lmtp'],
  allowFrom: ['routes', 'tcp-table', 'socketmap'],
  sieveExtensions: ['managesieve'],
};

function checkFrontendListeners(service: Group, path: Path, report: Report): void {
  for (const { value, path: at } of listenersOf(service, path)) {
    if (!isGroup(value)) continue;
    for (const [index, entry] of listOf(value.proxyFrom).entries()) {
      if (isText(entry) && !isAddressOrRange(entry)) {
        report([...at, 'proxyFrom', index], `${shown(entry)} is not an IP address or a range such as 10.1.0.0/16`);
      }
    }
    for (const [index, entry] of listOf(value.allowFrom).entries()) {
      if (isText(entry) && !isAddressOrRange(entry)) {
        report([...at, 'allowFrom', index], `${shown(entry)} is not an IP address or a range such as 10.1.0.0/16`);
      }
    }
    for (const [key, protocols] of Object.entries(listenerKeys)) {
      if (value[key] === undefined || !isText(value.protocol) || protocols.includes(value.protocol)) continue;
      report([...at, key], `is not known to ${value.protocol}, only to ${protocols.join(', ')}; remove it`, true);
    }
    if (value.tls === 'implicit' && ['agent', 'tcp-table', 'socketmap'].includes(String(value.protocol))) {
      report([...at, 'tls'], `${value.protocol} has no TLS; set tls: none`);
    }
    checkDomain(value.domain, [...at, 'domain'], report);
  }
  for (const [index, entry] of listOf(service.addressDomains).entries()) {
    if (!isGroup(entry)) continue;
    const at = [...path, 'addressDomains', index];
    if (isText(entry.address) && isIP(entry.address) === 0) report([...at, 'address'], `${shown(entry.address)} is not an IP address`);
    checkDomain(entry.domain, [...at, 'domain'], report);
  }
  const tls = isGroup(service.tls) ? service.tls : {};
  if (tls.clientCertificate === 'required' && tls.clientCaFile === undefined) {
    report([...path, 'tls', 'clientCaFile'], 'is missing: client certificates are required, and no CA of theirs is named', true);
  }
}

function checkDomain(value: unknown, path: Path, report: Report): void {
  if (isText(value) && tryParseDomainName(value) === undefined) report(path, `${shown(value)} is not a domain name`);
}

function checkListenersTls(service: Group, path: Path, report: Report): void {
  if (service.tls !== undefined) return;
  for (const { value, path: at } of listenersOf(service, path)) {
    if (isGroup(value) && (value.tls === 'implicit' || value.tls === 'starttls')) {
      report([...at, 'tls'], `${shown(value.tls)} needs a certificate: give this service tls: {certFile, keyFile}, or set tls: none`);
    }
  }
}

function checkDirectoryAccess(service: Group, path: Path, report: Report): void {
  if (!isGroup(service.directory)) return;
  const at = [...path, 'directory'];
  for (const [index, url] of listOf(service.directory.servers).entries()) {
    checkUrl(url, ['ldap:', 'ldaps:'], [...at, 'servers', index], report);
  }
  checkUrl(service.directory.master, ['ldap:', 'ldaps:'], [...at, 'master'], report);
  const { allAtOnce } = service.directory;
  if (!isGroup(allAtOnce)) return;
  const written = listOf(allAtOnce.servers).map((server, index) => ({ server, path: [...at, 'allAtOnce', 'servers', index] }));
  checkWrittenServers(written, report);
}

/** Each has a URL of its own, and a name of its own, by which what is known of it is kept. */
function checkWrittenServers(servers: readonly { readonly server: unknown; readonly path: Path }[], report: Report): void {
  const taken = { url: new Map<string, string>(), name: new Map<string, string>() };
  for (const { server, path } of servers) {
    if (!isGroup(server)) continue;
    checkUrl(server.url, ['ldap:', 'ldaps:'], [...path, 'url'], report);
    for (const key of ['url', 'name'] as const) {
      const value = server[key];
      if (!isText(value)) continue;
      const other = taken[key].get(value.toLowerCase());
      if (other !== undefined) report([...path, key], `${shown(value)} is already ${key === 'url' ? other : `the name of ${other}`}`);
      taken[key].set(value.toLowerCase(), pathText(path));
    }
  }
}

function checkUrl(value: unknown, protocols: readonly string[], path: Path, report: Report): void {
  if (!isText(value)) return;
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url === undefined || !protocols.includes(url.protocol) || url.hostname === '') {
    report(path, `${shown(value)} is not a URL of the form ${protocols.map((protocol) => `${protocol}//host:port`).join(' or ')}`);
  }
}

/** A secret is named by exactly one of file and env, wherever a key ends in `password`, `token`, `secret` or `accessKey`. */
function checkSecretSources(value: unknown, path: Path, report: Report): void {
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) checkSecretSources(item, [...path, index], report);
  } else if (isGroup(value)) {
    for (const [key, item] of Object.entries(value)) {
      if (/(?:password|token|accessKey|secret)$/i.test(key) && isGroup(item)) {
        const given = ['file', 'env'].filter((source) => item[source] !== undefined);
        if (given.length === 0) report([...path, key], 'says nothing; give exactly one of file, env');
        if (given.length === 2) report([...path, key], 'gives both file and env; give exactly one');
      } else {
        checkSecretSources(item, [...path, key], report);
      }
    }
  }
}

function claimAddress(value: unknown, path: Path, taken: Map<string, string>, report: Report): void {
  if (!isGroup(value) || !isNumber(value.port) || value.port === 0) return;
  const key = `${isText(value.address) ? value.address : '127.0.0.1'}:${value.port}`;
  const other = taken.get(key);
  if (other !== undefined) report([...path, 'port'], `${key} is already taken by ${other}`);
  taken.set(key, pathText(path));
}

function listenersOf(service: Group, path: Path): { value: unknown; path: Path }[] {
  return listOf(service.listeners).map((value, index) => ({ value, path: [...path, 'listeners', index] }));
}

/** Whether only this machine can reach the address. */
export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^127\.\d+\.\d+\.\d+$/.test(address);
}

const isGroup = (value: unknown): value is Group => typeof value === 'object' && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string => typeof value === 'string';
const isNumber = (value: unknown): value is number => typeof value === 'number';
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
