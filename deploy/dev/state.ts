/**
 * What a federation keeps on disk beside its services' data: certificates, secrets and accounts' passwords, so that `--data DIR` goes on
 * where the last run ended.
 */
import { join } from 'node:path';
import type { Clock } from '#common/clock.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import { allServers, certificateNames, identities, type Layout } from './plan.ts';
import { createThrowawayCa } from './throwaway-ca.ts';

/** Makes certificates and secrets that are missing; returns the console's password. */
export async function prepareState(layout: Layout, files: Files, clock: Clock, random: Random): Promise<{ consolePassword: string }> {
  for (const directory of ['tls', 'secrets']) await files.mkdirAll(join(layout.root, directory));
  await prepareCertificates(layout, files, clock, random);
  for (const identity of identities) await readOrMake(files, layout.secret(identity), () => token(random));
  return { consolePassword: await readOrMake(files, layout.secret('console'), () => token(random)) };
}

async function prepareCertificates(layout: Layout, files: Files, clock: Clock, random: Random): Promise<void> {
  const caKeyFile = join(layout.root, 'tls', 'ca.key');
  const certificate = await readText(files, layout.caFile);
  const key = await readText(files, caKeyFile);
  const ca = await createThrowawayCa(clock, random, certificate === undefined || key === undefined ? undefined : { certificate, key });
  await files.replace(caKeyFile, ca.kept.key);
  await files.replace(layout.caFile, ca.certificate);
  await Promise.all(
    allServers().map(async ({ name, role }) => {
      const issued = await ca.issue(certificateNames(name, role));
      const { certFile, keyFile } = layout.tls(name);
      await files.replace(keyFile, issued.key);
      await files.replace(certFile, issued.certificate);
    }),
  );
}

async function readOrMake(files: Files, path: string, make: () => string): Promise<string> {
  const found = await readText(files, path);
  if (found !== undefined) return found.trim();
  const made = make();
  await files.replace(path, `${made}\n`);
  return made;
}

/** Text of a file, or `undefined` when there is none. */
export async function readText(files: Files, path: string): Promise<string | undefined> {
  try {
    return (await files.read(path)).toString('utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

const letters = 'abcdefghjkmnpqrstuvwxyz23456789';

/** About 100 random bits in letters that are easy to paste and to tell apart. */
function token(random: Random): string {
  return Array.from({ length: 20 }, () => letters[random.integer(letters.length)]).join('');
}
