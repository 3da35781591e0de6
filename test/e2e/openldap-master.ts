/**
 * A stock slapd as the federation's master directory, on loopback, with the configuration that deploy/openldap ships: only paths, the port
 * and passwords are put in.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MasterDirectory } from '#deploy/dev/federation.ts';
import { directoryNames, type Identity, identityDn, type Layout } from '#deploy/dev/plan.ts';
import { freePort } from '../interop/slapd-server.ts';
import { ok, run, until } from './clients.ts';

const program = '/usr/sbin/slapd';
const shipped = new URL('../../deploy/openldap/', import.meta.url).pathname;

/** Starts it and loads the frame of the tree. */
export async function startOpenldapMaster(layout: Layout): Promise<MasterDirectory> {
  if (!existsSync(program)) throw new Error(`${program} is missing: install slapd (apt-get install slapd)`);
  const home = layout.data('openldap');
  await mkdir(join(home, 'data'), { recursive: true });
  const name = directoryNames.master;
  const { certFile, keyFile } = layout.tls(name);
  const secret = async (identity: Identity): Promise<string> => (await readFile(layout.secret(identity), 'utf8')).trim();
  const config = (await readFile(join(shipped, 'slapd.conf'), 'utf8'))
    .replaceAll('/etc/archipelago/openldap/', shipped)
    .replace('/etc/archipelago/tls/ldap-master.pem', certFile)
    .replace('/etc/archipelago/tls/ldap-master.key', keyFile)
    .replace('/var/lib/archipelago/openldap', join(home, 'data'))
    .replaceAll('/run/slapd/', `${home}/`)
    // A sparse file, yet not every test disk likes 100 GB of it.
    .replace('maxsize 107374182400', 'maxsize 1073741824')
    .replace('ADMIN-PASSWORD', await secret('admin'));
  await writeFile(join(home, 'slapd.conf'), config);
  const [port, tlsPort] = [await freePort(), await freePort()];
  const url = `ldap://127.0.0.1:${port}`;
  const ldapsUrl = `ldaps://127.0.0.1:${tlsPort}`;
  const child = spawn(program, ['-d', '0', '-h', `${url} ${ldapsUrl}`, '-f', join(home, 'slapd.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let output = '';
  child.stderr.on('data', (chunk: Buffer) => {
    output = `${output}${chunk}`.slice(-4000);
  });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const master = {
    name,
    url,
    ldapsUrl,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
    },
  };
  try {
    const admin = ['-x', '-H', url, '-D', identityDn('admin'), '-w', await secret('admin')];
    await until(
      async () => ({ ...(await run('ldapwhoami', admin)), ended: child.exitCode, output }),
      ({ code, ended }) => code === 0 || ended !== null,
      20_000,
    );
    if (child.exitCode !== null) throw new Error(`slapd ended at once: ${output}`);
    let base = await readFile(join(shipped, 'base.ldif'), 'utf8');
    for (const identity of ['frontend', 'cluster', 'replicator', 'provisioner'] as const) {
      base = base.replace(`${identity.toUpperCase()}-PASSWORD`, await secret(identity));
    }
    await ok('ldapadd', admin, { input: base });
  } catch (error) {
    await master[Symbol.asyncDispose]();
    throw error;
  }
  return master;
}
