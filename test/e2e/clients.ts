/**
 * Mail and LDAP clients that are not ours, run as a user would: the OpenLDAP tools and curl.
 */
import { spawn } from 'node:child_process';
import type { ReadyDocument } from '#deploy/dev/ready-document.ts';

/** What a program did. */
export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a program to its end; it is killed after `limitMs`. A missing program rejects with what to install. */
export function run(
  program: string,
  args: readonly string[],
  options: { input?: string; limitMs?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'pipe', env: { ...process.env, ...options.env } });
    const timer = setTimeout(() => child.kill('SIGKILL'), options.limitMs ?? 30_000);
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk;
    });
    child.on('error', () => {
      clearTimeout(timer);
      reject(new Error(`${program} is not installed; "npm test" installs it on Debian as root (test/setup/install-peers.mjs)`));
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? -1, out, err });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** Runs a program and expects it to succeed; gives its output. */
export async function ok(program: string, args: readonly string[], options: { input?: string; limitMs?: number } = {}): Promise<string> {
  const ran = await run(program, args, options);
  if (ran.code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${ran.code}: ${ran.err}${ran.out}`);
  return ran.out;
}

/** The OpenLDAP tools, bound as the administrator of the master. */
export function ldapAdmin(ready: ReadyDocument, url = ready.directory.master.url): string[] {
  return ['-x', '-H', url, '-D', ready.directory.adminDn, '-w', ready.directory.adminPassword];
}

/** LDIF of a new account. */
export function accountLdif(uid: string, password: string, hostServer?: string): string {
  return [
    `dn: uid=${uid},cn=isp.example,o=mail`,
    'objectClass: inetOrgPerson',
    'objectClass: mailAccount',
    `cn: ${uid}`,
    `sn: ${uid}`,
    `userPassword: ${password}`,
    ...(hostServer === undefined ? [] : [`hostServer: ${hostServer}`]),
    '',
  ].join('\n');
}

/** One IMAP command by curl over implicit TLS, e.g. `STATUS INBOX (MESSAGES)`. */
export function curlImap(ready: ReadyDocument, address: string, user: string, password: string, command: string): Promise<Ran> {
  return curlMail(ready, user, password, `imaps://${address}/`, '-X', command);
}

/** Fetches a message of INBOX by sequence number. */
export function curlFetch(ready: ReadyDocument, address: string, user: string, password: string, index: number): Promise<Ran> {
  return curlMail(ready, user, password, `imaps://${address}/INBOX;MAILINDEX=${index}`);
}

/** Lists a maildrop by POP3 over implicit TLS, or fetches the message that `path` numbers. */
export function curlPop3(ready: ReadyDocument, address: string, user: string, password: string, path = ''): Promise<Ran> {
  return curlMail(ready, user, password, `pop3s://${address}/${path}`);
}

function curlMail(ready: ReadyDocument, user: string, password: string, ...rest: readonly string[]): Promise<Ran> {
  return run('curl', ['-sS', '--max-time', '20', '--cacert', ready.caFile, '--user', `${user}:${password}`, ...rest]);
}

/** Sends a message by SMTP with STARTTLS. */
export function curlSend(ready: ReadyDocument, address: string, from: string, to: string, subject: string, body: string): Promise<Ran> {
  const message = `From: ${from}\r\nTo: ${to}\r\nSubject: ${subject}\r\nMessage-ID: <${subject.replaceAll(/\W/g, '.')}@test.example>\r\n\r\n${body}\r\n`;
  return run(
    'curl',
    [
      '-sS',
      '--max-time',
      '20',
      '--cacert',
      ready.caFile,
      '--ssl-reqd',
      `smtp://${address}`,
      '--mail-from',
      from,
      '--mail-rcpt',
      to,
      '-T',
      '-',
    ],
    { input: message },
  );
}

/** Asks again until `holds` is true; rejects with the last answer after `limitMs`. Gives the milliseconds it took. */
export async function until<T>(
  ask: () => Promise<T>,
  holds: (answer: T) => boolean,
  limitMs: number,
): Promise<{ answer: T; tookMs: number }> {
  const startedAtMs = performance.now();
  for (;;) {
    const answer = await ask();
    const tookMs = performance.now() - startedAtMs;
    if (holds(answer)) return { answer, tookMs };
    if (tookMs > limitMs) throw new Error(`not within ${limitMs} ms; last answer: ${JSON.stringify(answer)?.slice(0, 2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
