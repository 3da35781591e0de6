/**
 * A sample provisioning system: it creates accounts over LDAP, renames some, removes some, and checks every answer.
 *
 *     node bin/run.mjs deploy/examples/provision.ts --url ldap://127.0.0.1:10389 \
 *         --bind-dn cn=provisioner,ou=services,o=mail --password-file FILE --count 1000 --rename 50 --remove 50
 *
 * It is written with ldapjs on purpose: provisioning systems in the wild are, and it shares no code with the product
 * (docs/adr/0001-ldapjs.md). Passwords are sent as salted hashes, as such systems do.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import ldapjs, { type Attribute, type Client, type SearchEntry } from 'ldapjs';

// CommonJS: its exports come as one object.
const { createClient, EqualityFilter } = ldapjs;

const inFlightMax = 32;

interface Options {
  readonly url: string;
  readonly bindDn: string;
  readonly password: string;
  readonly caFile: string | undefined;
  readonly suffix: string;
  readonly domain: string;
  readonly prefix: string;
  readonly hostServer: string | undefined;
  readonly count: number;
  readonly rename: number;
  readonly remove: number;
}

/** An account that was created, as the directory answered it. */
interface Provisioned {
  name: string;
  readonly uuid: string;
  readonly hostServer: string;
}

const options = readOptions();
const client = await connect(options);
try {
  const accounts = await createAll(client, options);
  await renameSome(client, options, accounts.slice(0, options.rename));
  await removeSome(client, options, accounts.slice(options.rename, options.rename + options.remove));
  const perCluster = new Map<string, number>();
  for (const account of accounts) perCluster.set(account.hostServer, (perCluster.get(account.hostServer) ?? 0) + 1);
  const spread = [...perCluster].map(([cluster, accountsThere]) => `${cluster} ${accountsThere}`).join(', ');
  process.stdout.write(
    `created ${accounts.length} (${spread}), renamed ${options.rename}, removed ${options.remove}; every answer was checked\n`,
  );
} finally {
  client.unbind();
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      'bind-dn': { type: 'string' },
      'password-file': { type: 'string' },
      'ca-file': { type: 'string' },
      suffix: { type: 'string', default: 'o=mail' },
      domain: { type: 'string', default: 'isp.example' },
      prefix: { type: 'string', default: 'user' },
      'host-server': { type: 'string' },
      count: { type: 'string', default: '1000' },
      rename: { type: 'string', default: '50' },
      remove: { type: 'string', default: '50' },
    },
  });
  const [url, bindDn, passwordFile] = [values.url, values['bind-dn'], values['password-file']];
  if (url === undefined || bindDn === undefined || passwordFile === undefined) {
    process.stderr.write(
      'usage: provision.ts --url URL --bind-dn DN --password-file FILE [--ca-file FILE] [--count N] [--rename N] [--remove N]\n',
    );
    process.exit(2);
  }
  const [count, rename, remove] = [Number(values.count), Number(values.rename), Number(values.remove)];
  if (![count, rename, remove].every((n) => Number.isSafeInteger(n) && n >= 0) || rename + remove > count) {
    process.stderr.write('provision.ts: --count, --rename and --remove are whole numbers, and rename + remove are at most count\n');
    process.exit(2);
  }
  return {
    url,
    bindDn,
    password: readFileSync(passwordFile, 'utf8').split('\n')[0] ?? '',
    caFile: values['ca-file'],
    suffix: values.suffix,
    domain: values.domain,
    prefix: values.prefix,
    hostServer: values['host-server'],
    count,
    rename,
    remove,
  };
}

async function connect(from: Options): Promise<Client> {
  const tlsOptions = from.caFile === undefined ? undefined : { ca: [readFileSync(from.caFile)] };
  const ldap = createClient({ url: from.url, connectTimeout: 5000, timeout: 30_000, ...(tlsOptions === undefined ? {} : { tlsOptions }) });
  await new Promise<void>((resolve, reject) => {
    ldap.once('connect', () => resolve());
    ldap.once('connectError', (error: Error) => reject(error));
    ldap.once('error', (error: Error) => reject(error));
  });
  await answered((done) => ldap.bind(from.bindDn, from.password, done));
  return ldap;
}

async function createAll(ldap: Client, from: Options): Promise<Provisioned[]> {
  const names = Array.from({ length: from.count }, (_, index) => `${from.prefix}${String(index + 1).padStart(5, '0')}`);
  return forEach('creating', names, async (name) => {
    await answered((done) => ldap.add(dnOf(from, name), accountEntry(from, name), done));
    const entry = await readAccount(ldap, from, name);
    if (entry === undefined) throw new Error(`${name} was added and cannot be read`);
    const hostServer = attributeText(entry, 'hostServer');
    if (hostServer === '') throw new Error(`${name} was added and got no hostServer`);
    return { name, uuid: attributeText(entry, 'entryUUID'), hostServer };
  });
}

async function renameSome(ldap: Client, from: Options, accounts: readonly Provisioned[]): Promise<void> {
  await forEach('renaming', accounts, async (account) => {
    const old = account.name;
    account.name = `${old}.renamed`;
    await answered((done) => ldap.modifyDN(dnOf(from, old), `uid=${account.name}`, done));
    const entry = await readAccount(ldap, from, account.name);
    if (entry === undefined || attributeText(entry, 'entryUUID') !== account.uuid)
      throw new Error(`${old} was renamed and is not the same entry now`);
    if ((await readAccount(ldap, from, old)) !== undefined) throw new Error(`${old} was renamed and still answers to its old name`);
  });
}

async function removeSome(ldap: Client, from: Options, accounts: readonly Provisioned[]): Promise<void> {
  await forEach('removing', accounts, async (account) => {
    await answered((done) => ldap.del(dnOf(from, account.name), done));
    if ((await readAccount(ldap, from, account.name)) !== undefined) throw new Error(`${account.name} was removed and is still there`);
  });
}

function dnOf(from: Options, name: string): string {
  return `uid=${name},cn=${from.domain},${from.suffix}`;
}

function accountEntry(from: Options, name: string): Record<string, string | string[]> {
  return {
    objectClass: ['inetOrgPerson', 'mailAccount'],
    uid: name,
    cn: `User ${name}`,
    sn: name,
    mail: `${name}@${from.domain}`,
    userPassword: saltedHash(`secret-${name}`),
    ...(from.hostServer === undefined ? {} : { hostServer: from.hostServer }),
  };
}

/** {SSHA512}: SHA-512 over password and salt, then the salt. */
function saltedHash(password: string): string {
  const salt = randomBytes(16);
  return `{SSHA512}${Buffer.concat([createHash('sha512').update(password).update(salt).digest(), salt]).toString('base64')}`;
}

function readAccount(ldap: Client, from: Options, name: string): Promise<SearchEntry | undefined> {
  // A filter object, not text: ldapjs never decodes the escapes of a textual filter.
  const filter = new EqualityFilter({ attribute: 'uid', value: name });
  return new Promise((resolve, reject) => {
    ldap.search(
      `cn=${from.domain},${from.suffix}`,
      { scope: 'one', filter, attributes: ['entryUUID', 'hostServer'] },
      (error, response) => {
        if (error !== null) {
          reject(error);
          return;
        }
        let found: SearchEntry | undefined;
        response.on('searchEntry', (entry: SearchEntry) => {
          found = entry;
        });
        response.on('error', reject);
        response.on('end', () => resolve(found));
      },
    );
  });
}

function attributeText(entry: SearchEntry, name: string): string {
  const attribute = (entry.attributes as Attribute[]).find((each) => each.type.toLowerCase() === name.toLowerCase());
  return attribute === undefined ? '' : String(([] as unknown[]).concat(attribute.values)[0] ?? '');
}

function answered(ask: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    ask((error) => (error === null || error === undefined ? resolve() : reject(error)));
  });
}

/** Runs `work` over all items, at most `inFlightMax` at a time, with a progress bar on standard error. */
async function forEach<T, R>(label: string, items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  let done = 0;
  const width = 40;
  const draw = (): void => {
    const filled = items.length === 0 ? width : Math.floor((done / items.length) * width);
    const bar = `${label.padEnd(9)} [${'#'.repeat(filled)}${'.'.repeat(width - filled)}] ${done}/${items.length}`;
    if (process.stderr.isTTY) process.stderr.write(`\r${bar}${done === items.length ? '\n' : ''}`);
    else if (done === items.length) process.stderr.write(`${bar}\n`);
  };
  const lane = async (): Promise<void> => {
    while (next < items.length) {
      const index = next;
      next += 1;
      results[index] = await work(items[index] as T);
      done += 1;
      draw();
    }
  };
  if (items.length === 0) draw();
  await Promise.all(Array.from({ length: Math.min(inFlightMax, items.length) }, lane));
  return results;
}
