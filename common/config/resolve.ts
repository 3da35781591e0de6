/**
 * From what the configuration names to the thing itself: secrets and PEM files. Mistakes name the place and what to do.
 */
import type { SecretSource } from '#common/config/options.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import { Secret } from '#common/secret.ts';

/** Environment variables, as the process's main hands them in. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Reads a secret: the first line of its file, or its environment variable. Throws `CONFIG_UNREADABLE` or `CONFIG_INVALID`. */
export async function readSecret(source: SecretSource, files: Files, env: Environment = {}): Promise<Secret<string>> {
  if ((source.file === undefined) === (source.env === undefined)) {
    throw new PlatformError('CONFIG_INVALID', 'a secret is named by exactly one of "file" and "env"');
  }
  const value = source.file !== undefined ? await firstLine(source.file, files) : env[source.env as string];
  if (value === undefined || value === '') {
    const where = source.file !== undefined ? `the first line of ${source.file}` : `the environment variable ${source.env}`;
    throw new PlatformError('CONFIG_UNREADABLE', `${where} is empty or missing; put the secret there`);
  }
  return new Secret(value);
}

/** Reads a PEM file. Throws `CONFIG_UNREADABLE`, also when it holds no PEM block. */
export async function readPem(path: string, files: Files): Promise<string> {
  const text = (await readFile(path, files)).toString('latin1');
  if (!text.includes('-----BEGIN ')) {
    throw new PlatformError('CONFIG_UNREADABLE', `${path} holds no PEM block; expected lines from -----BEGIN to -----END`);
  }
  return text;
}

async function firstLine(path: string, files: Files): Promise<string> {
  const text = (await readFile(path, files)).toString('utf8');
  return (text.split('\n', 1)[0] as string).replace(/\r$/, '');
}

async function readFile(path: string, files: Files): Promise<Buffer> {
  try {
    return await files.read(path);
  } catch (error) {
    throw new PlatformError('CONFIG_UNREADABLE', `cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}
