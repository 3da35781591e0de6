import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { problemText } from '#common/config/node-file.ts';
import { loadServicesFile } from '#operate/config/service-schemas.ts';

const frontend = `services:
  - role: frontend
    name: front1.eu.isp.example
    subset: eu
    queueDirectory: run/queue
    tls: {certFile: a.pem, keyFile: a.key}
    listeners:
      - {protocol: imap, port: 1143}
    directory:
      servers: [ldap://127.0.0.1:3389]
      master: ldap://127.0.0.1:3390
      bindDn: cn=frontend,ou=services,o=mail
      bindPassword: {file: secret}
`;

function problemsOf(text: string): string[] {
  const loaded = loadServicesFile('etc/fe.yaml', text);
  if ('config' in loaded) throw new Error('the file was accepted');
  return loaded.problems.map(problemText);
}

describe('a node file', () => {
  it('is loaded with its defaults filled in and its paths counted from its own directory', () => {
    const loaded = loadServicesFile('etc/fe.yaml', frontend);
    if ('problems' in loaded) throw new Error(loaded.problems.map(problemText).join('\n'));
    expect(loaded.config.log).toEqual({ level: 'info' });
    const service = loaded.config.services[0];
    if (service?.role !== 'frontend') throw new Error('no frontend');
    expect(service.queueDirectory).toBe(resolve('etc/run/queue'));
    expect(service.tls).toMatchObject({ certFile: resolve('etc/a.pem'), keyFile: resolve('etc/a.key') });
    expect(service.directory.bindPassword.file).toBe(resolve('etc/secret'));
    expect(service.directory.servers).toEqual(['ldap://127.0.0.1:3389']);
    expect(service.listeners[0]).toMatchObject({ tls: 'starttls', address: '127.0.0.1', allowPlaintextLogin: false });
    // What the subset's entry may say is not filled in as if the file had said it.
    expect([service.listeners[0]?.connectionsMax, service.drainMs]).toEqual([undefined, undefined]);
  });

  it('has all its mistakes reported at once, each with its place and what was meant', () => {
    const text = frontend
      .replace('protocol: imap, port: 1143', 'protocol: imap, port: 114300, tls: implict')
      .replace('queueDirectory', 'queueDirectroy')
      .replace('{file: secret}', '{}');
    expect(problemsOf(text)).toEqual([
      'etc/fe.yaml:2:5  services[0].queueDirectory: is missing: Directory on this server’s own disk for the mail queue',
      'etc/fe.yaml:5:5  services[0].queueDirectroy: unknown key; did you mean "queueDirectory"?',
      'etc/fe.yaml:8:32  services[0].listeners[0].port: 114300 is too large; at most 65535 is expected',
      'etc/fe.yaml:8:45  services[0].listeners[0].tls: "implict" is not one of implicit|starttls|none; did you mean "implicit"?',
      'etc/fe.yaml:13:21  services[0].directory.bindPassword: says nothing; give exactly one of file, env',
    ]);
  });

  const rejected: readonly [string, string, string | RegExp][] = [
    ['that is empty', '', /where the keys data, log, admin, services are expected/],
    ['that is a list', '- a\n', /a list where the keys/],
    ['whose YAML is broken', 'services:\n  - role: [frontend\n', /^etc\/fe\.yaml:3:1 {2}/],
    ['that gives a key twice', `${frontend}log: {level: info}\nlog: {level: warn}\n`, /Map keys must be unique/],
    ['with an unknown role', frontend.replace('role: frontend', 'role: fronted'), /"fronted" is not one of .*did you mean "frontend"\?/],
    ['with a service without role', frontend.replace('role: frontend', 'rolle: frontend'), /services\[0\]\.role: is missing: one of/],
    ['with no service', 'services: []\n', /at least 1 is expected/],
    ['with a service that is text', 'services: [frontend]\n', /services\[0\]: "frontend" where the keys of a service are expected/],
    ['with TLS listeners and no certificate', frontend.replace(/ {4}tls:.*\n/, ''), /"starttls" needs a certificate/],
    ['with StartTLS over HTTP', frontend.replace('protocol: imap', 'protocol: http'), /"starttls" is not known to http/],
    [
      'with a list of who may ask where everybody may come',
      frontend.replace('port: 1143', 'port: 1143, allowFrom: [10.0.0.0/8]'),
      /listeners\[0\]\.allowFrom: is not known to imap, only to routes, tcp-table, socketmap; remove it/,
    ],
    [
      'with load balancers where no header is read',
      frontend.replace('protocol: imap, port: 1143', 'protocol: agent, port: 1143, proxyFrom: [10.0.0.1]'),
      /proxyFrom: is not known to agent/,
    ],
    [
      'with TLS where there is none',
      frontend.replace('protocol: imap, port: 1143', 'protocol: socketmap, port: 1143, tls: implicit'),
      /tls: socketmap has no TLS; set tls: none/,
    ],
    ['whose secret has two sources', frontend.replace('{file: secret}', '{file: s, env: S}'), /gives both file and env/],
    ['with a directory URL of another kind', frontend.replace('[ldap://127', '[http://127'), /is not a URL of the form ldap:/],
    [
      'with a link of no connections',
      `${frontend}    interCluster: {connectionsMax: 0}\n`,
      /interCluster\.connectionsMax: 0 is too small; at least 1/,
    ],
    [
      'with more sessions on a connection than it carries',
      `${frontend}    interCluster: {imap: {sessionsPerConnection: 20000}}\n`,
      /interCluster\.imap\.sessionsPerConnection: 20000 is too large; at most 16384/,
    ],
    [
      'with a time in words',
      `${frontend}    interCluster: {unusedKeptMs: 10s}\n`,
      /interCluster\.unusedKeptMs: "10s" is not a whole number/,
    ],
    ['with a link of no service', `${frontend}    interCluster: {imaps: {}}\n`, /interCluster\.imaps: unknown key; did you mean "imap"\?/],
    [
      'with a log level of no name',
      `${frontend}    interCluster: {lmtp: {logLevel: debgu}}\n`,
      /"debgu" is not one of .*did you mean "debug"\?/,
    ],
    ['with one port taken twice', `${frontend}admin: {port: 1143, tokenFile: t}\n`, /127\.0\.0\.1:1143 is already taken by admin/],
    ['whose admin API is open without TLS', `${frontend}admin: {address: 0.0.0.0, port: 1, tokenFile: t}\n`, /admin\.tls: is missing/],
    ['with a name of one label', frontend.replace('front1.eu.isp.example', 'front1'), /"front1" is not a full server name/],
    [
      'with aliases that multiply',
      `a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n`,
      /alias/i,
    ],
    ['larger than the limit', `# ${'x'.repeat(1_048_576)}\n`, /at most 1048576 are read/],
  ];
  it.each(rejected)('%s is refused', (_what, text, expected) => {
    expect(problemsOf(text).join('\n')).toMatch(expected);
  });

  const member = `services:
  - role: backend-cluster
    name: back1.west.isp.example
    listen: {port: 7001}
    storage: {path: shared}
    coordinator: {engine: embedded}
    directory:
      servers: [ldap://127.0.0.1:3389]
      master: ldap://127.0.0.1:3390
      bindDn: cn=cluster,ou=services,o=mail
      bindPassword: {env: BIND}
`;
  it.each([
    ['a lease of three heartbeats', `${member}    leaseMs: 3000\n`, /3000 is not more than three heartbeats \(heartbeatMs is 1000\)/],
    [
      'a link of a service that members have none of',
      `${member}    interCluster: {imap: {}}\n`,
      /interCluster\.imap: unknown key; known here: .*deliver, calls/,
    ],
    ['a socket coordinator without path', member.replace('embedded', 'socket'), /coordinator\.path: is missing/],
    ['a Redis coordinator without URL', member.replace('embedded', 'redis'), /coordinator\.url: is missing/],
    [
      'a password in the URL of its Redis',
      member.replace('engine: embedded', 'engine: redis, url: "redis://mail:hunter2@cache:6379"'),
      /coordinator\.url: is not redis:(?!.*hunter2).*coordinator\.password/,
    ],
    [
      'a shared directory without path',
      member.replace('{path: shared}', '{engine: posix}'),
      /storage\.path: is missing: engine posix needs it/,
    ],
    ['a bucket without name', member.replace('{path: shared}', '{engine: s3}'), /storage\.bucket: is missing: engine s3 needs it/],
    [
      'a bucket and a path',
      member.replace('{path: shared}', '{engine: s3, path: shared}'),
      /storage\.path: is for engine posix; remove it, or set engine: posix/,
    ],
    [
      'an endpoint that is no URL',
      member.replace('{path: shared}', '{engine: s3, endpoint: "s3.isp"}'),
      /"s3\.isp" is not a URL of the form https:/,
    ],
    [
      'an endpoint with the bucket in it',
      member.replace('{path: shared}', '{engine: s3, endpoint: "https://s3.isp.example/mail"}'),
      /has a path; give the bucket as bucket:/,
    ],
    ['a bucket in capitals', member.replace('{path: shared}', '{engine: s3, bucket: Mail}'), /"Mail" is not a bucket’s name/],
    ['an access key from nowhere', member.replace('{path: shared}', '{engine: s3, secretAccessKey: {}}'), /secretAccessKey: says nothing/],
    ['a name without a cluster', member.replace('back1.west.isp.example', 'west.example'), /has no label before its cluster/],
    ['a Cluster Network of words', `${member}    clusterNetwork: [inside]\n`, /"inside" is not an IP address/],
    ['an open link without mutual TLS', member.replace('{port: 7001}', '{address: 10.0.0.1, port: 7001}'), /link: is missing/],
  ])('refuses a member with %s', (_what, text, expected) => {
    expect(problemsOf(text).join('\n')).toMatch(expected);
  });

  it('refuses a replica that has no master to refer writers to', () => {
    const text =
      'services:\n  - {role: directory, name: l.isp.example, mode: replica, dataDirectory: d, listeners: [{port: 1, tls: none}]}\n';
    expect(problemsOf(text).join('\n')).toMatch(/services\[0\]\.master: is missing: a replica needs the URL of its master/);
  });

  it('refuses replication whose replica is the master itself', () => {
    const server = 'url: "ldap://127.0.0.1:1", bindDn: cn=r, bindPassword: {env: X}';
    const text = `services:\n  - {role: replication, name: r.isp.example, stateDirectory: s, master: {${server}}, replicas: [{name: a.b, ${server}}]}\n`;
    expect(problemsOf(text).join('\n')).toMatch(/replicas\[0\]\.url: .* is already services\[0\]\.master/);
  });

  it('refuses two servers to be written that have one name: one of them would be forgotten', () => {
    const at = (port: number): string => `url: "ldap://127.0.0.1:${port}", bindDn: cn=r, bindPassword: {env: X}`;
    const replicas = `[{name: ldap-eu, ${at(2)}}, {name: LDAP-EU, ${at(3)}}]`;
    const text = `services:\n  - {role: replication, name: r.isp.example, stateDirectory: s, master: {${at(1)}}, replicas: ${replicas}}\n`;
    expect(problemsOf(text).join('\n')).toMatch(/replicas\[1\]\.name: "LDAP-EU" is already the name of services\[0\]\.replicas\[0\]/);
    const copies = `allAtOnce:\n        outboxDirectory: o\n        servers: ${replicas}\n`;
    expect(problemsOf(`${member}      ${copies}`).join('\n')).toMatch(/allAtOnce\.servers\[1\]\.name: "LDAP-EU" is already the name of/);
  });
});
