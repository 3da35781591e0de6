/** The two servers under measurement, each a process of its own on loopback with its data in a temporary directory. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { freePort, serviceOptions } from '../processes.ts';
import { adminDn, adminPassword, suffix } from './accounts.ts';
import { cpuSeconds, memoryMb } from './process-use.ts';

/** A server that runs. */
export interface BenchServer {
  readonly name: 'archipelago' | 'slapd';
  readonly pid: number;
  readonly port: number;
  readonly tlsPort: number;
  /** What its caches take and may take, MB, where the server can tell. */
  cachedMb(): Promise<{ readonly now: number; readonly most: number } | undefined>;
  /** Puts the built-in access rules in force, or none; slapd has none here. */
  useRules(which: 'built-in' | 'none'): Promise<void>;
  stop(): Promise<void>;
}

/** Certificate and key files for both. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

/** A certificate for loopback that nobody trusts but the load. */
export function makeCertificate(folder: string): TlsFiles {
  const files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', files.key];
  const made = spawnSync('openssl', ['req', '-x509', '-days', '2', ...key, '-out', files.cert, ...subject]);
  if (made.status !== 0) throw new Error(`openssl made no certificate: ${String(made.stderr)}`);
  return files;
}

const node = process.execPath;
const sibling = (name: string): string => join(import.meta.dirname, name);

/** Our server. */
export async function startOwn(dataDirectory: string, tls: TlsFiles, nodeArguments: readonly string[] = []): Promise<BenchServer> {
  const child = spawn(node, [...serviceOptions, ...nodeArguments, sibling('own-server.ts'), dataDirectory, tls.cert, tls.key], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface(child.stdout);
  const [line] = (await once(lines, 'line')) as [string];
  const { port, tlsPort } = JSON.parse(line) as { port: number; tlsPort: number };
  const ask = async (question: string): Promise<string> => {
    const told = once(lines, 'line') as Promise<[string]>;
    child.stdin.write(`${question}\n`);
    return (await told)[0];
  };
  return {
    name: 'archipelago',
    pid: child.pid as number,
    port,
    tlsPort,
    cachedMb: async () => {
      const { bytes, bytesMax } = JSON.parse(await ask('cache')) as { bytes: number; bytesMax: number };
      return { now: Math.round(bytes / 1_048_576), most: Math.round(bytesMax / 1_048_576) };
    },
    useRules: async (which) => {
      await ask(`rules ${which}`);
    },
    stop: () => stopChild(child, () => child.stdin.end()),
  };
}

/** What a program took: by the clock, and of the processor. */
export interface Took {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Most memory it had at a time, MB. */
  readonly peakMb: number;
}

/** Imports an LDIF into an empty data directory of ours, as an operator does. */
export function importOwn(dataDirectory: string, ldif: string): Promise<Took> {
  return run(node, [
    ...serviceOptions,
    join(import.meta.dirname, '../../deploy/run/directory.ts'),
    'import',
    '--data',
    dataDirectory,
    ldif,
  ]);
}

/** Writes a configuration of slapd and gives its path: back-mdb, indexes as ours, durable writes, no statistics log; a provider has syncprov. */
export async function configureSlapd(folder: string, tls: TlsFiles, options: { readonly isProvider?: boolean } = {}): Promise<string> {
  await mkdir(join(folder, 'data'), { recursive: true });
  const path = join(folder, 'slapd.conf');
  const schemas = ['core', 'cosine', 'inetorgperson'].map((name) => `include /etc/ldap/schema/${name}.schema`);
  await writeFile(
    path,
    `${schemas.join('\n')}
attributetype ( 2.25.1.1.1 NAME 'hostServer' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 2.25.1.1.6 NAME 'mailDomainAlias' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 2.25.1.1.7 NAME 'clusterMember' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
objectclass ( 2.25.1.2.1 NAME 'mailAccount' SUP top AUXILIARY MUST uid MAY ( hostServer $ mail ) )
objectclass ( 2.25.1.2.2 NAME 'mailDomain' SUP top STRUCTURAL MUST cn MAY mailDomainAlias )
objectclass ( 2.25.1.2.3 NAME 'mailCluster' SUP top STRUCTURAL MUST cn MAY clusterMember )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
loglevel 0
sizelimit unlimited
TLSCertificateFile ${tls.cert}
TLSCertificateKeyFile ${tls.key}
database mdb
maxsize 17179869184
suffix ${suffix}
rootdn ${adminDn}
rootpw ${adminPassword}
directory ${join(folder, 'data')}
index objectClass,entryUUID,entryCSN,uid,cn,mail,hostServer eq
${options.isProvider === true ? 'overlay syncprov\n' : ''}`,
  );
  return path;
}

/** Imports an LDIF with `slapadd -q`. */
export function importSlapd(configuration: string, ldif: string): Promise<Took> {
  return run('/usr/sbin/slapadd', ['-q', '-f', configuration, '-l', ldif]);
}

/** OpenLDAP. */
export async function startSlapd(configuration: string): Promise<BenchServer> {
  const [port, tlsPort] = [await freePort(), await freePort()];
  const urls = `ldap://127.0.0.1:${port} ldaps://127.0.0.1:${tlsPort}`;
  const child = spawn('/usr/sbin/slapd', ['-d', '0', '-h', urls, '-f', configuration], { stdio: ['ignore', 'inherit', 'inherit'] });
  while (!(await answers(port))) {
    if (child.exitCode !== null) throw new Error(`slapd ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    name: 'slapd',
    pid: child.pid as number,
    port,
    tlsPort,
    cachedMb: () => Promise.resolve(undefined),
    useRules: () => Promise.resolve(),
    stop: () => stopChild(child, () => child.kill('SIGTERM')),
  };
}

/** Bytes that a directory's files take on the disk. */
export async function bytesIn(folder: string): Promise<number> {
  let bytes = 0;
  for (const file of await readdir(folder)) bytes += (await stat(join(folder, file))).blocks * 512;
  return bytes;
}

async function run(program: string, args: readonly string[]): Promise<Took> {
  const began = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'pipe'] });
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaints = `${complaints}${chunk.toString()}`.slice(-2000);
  });
  // The last look before its end misses next to nothing.
  let cpu = 0;
  let peakMb = 0;
  const look = setInterval(() => {
    if (child.exitCode !== null) return;
    cpu = cpuSeconds(child.pid as number);
    peakMb = Math.max(peakMb, memoryMb(child.pid as number).peak);
  }, 20);
  const [code] = (await once(child, 'exit')) as [number | null];
  clearInterval(look);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${complaints}`);
  return { seconds: (performance.now() - began) / 1000, cpuSeconds: cpu, peakMb };
}

async function stopChild(child: ChildProcess, ask: () => void): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = once(child, 'exit');
  ask();
  await exited;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
