/**
 * Context files: how the CLI finds a running installation without being told. One JSON file each, mode 0600, below
 * `${XDG_CONFIG_HOME:-~/.config}/archipelago/contexts/`. The demo writes one and removes it at its end; one whose process is gone counts
 * for nothing.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';

/** Where an installation's admin API is. */
export interface CliContext {
  readonly name: string;
  readonly url: string;
  readonly token: string;
  /** PEM text of the CA, not a path: the file may outlive the folder it came from. */
  readonly ca?: string | undefined;
  /** Process that serves it; once it is gone the context is ignored. */
  readonly pid?: number | undefined;
}

/** Directory of the context files. */
export function contextDirectory(env: NodeJS.ProcessEnv): string {
  const configHome = env.XDG_CONFIG_HOME;
  return join(
    configHome !== undefined && configHome !== '' ? configHome : join(env.HOME ?? homedir(), '.config'),
    'archipelago',
    'contexts',
  );
}

/** Writes or replaces a context. Returns the file's path. */
export async function writeContext(env: NodeJS.ProcessEnv, context: CliContext): Promise<string> {
  const directory = contextDirectory(env);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = contextPath(directory, context.name);
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, `${JSON.stringify(context, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, path);
  return path;
}

/** Removes a context; no failure when there is none. */
export async function removeContext(env: NodeJS.ProcessEnv, name: string): Promise<void> {
  await rm(contextPath(contextDirectory(env), name), { force: true });
}

/** All contexts whose process, if one is named, is alive. Files that are no context are passed over. */
export async function readContexts(env: NodeJS.ProcessEnv): Promise<readonly CliContext[]> {
  const directory = contextDirectory(env);
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw new PlatformError('CONFIG_UNREADABLE', `${directory} cannot be read: ${String(errnoOf(error))}`, { cause: error });
  }
  const contexts: CliContext[] = [];
  for (const name of names.filter((each) => each.endsWith('.json')).sort()) {
    const context = await readContext(join(directory, name));
    if (context !== undefined && (context.pid === undefined || isAlive(context.pid))) contexts.push(context);
  }
  return contexts;
}

async function readContext(path: string): Promise<CliContext | undefined> {
  try {
    const data = JSON.parse(await readFile(path, 'utf8')) as Partial<CliContext> | null;
    if (typeof data?.name !== 'string' || typeof data.url !== 'string' || typeof data.token !== 'string') return undefined;
    return {
      name: data.name,
      url: data.url,
      token: data.token,
      ca: typeof data.ca === 'string' ? data.ca : undefined,
      pid: typeof data.pid === 'number' ? data.pid : undefined,
    };
  } catch {
    // A file that was removed meanwhile, or is no JSON: not a context.
    return undefined;
  }
}

function contextPath(directory: string, name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) {
    throw new PlatformError('CONFIG_INVALID', `"${name}" is not a context name; letters, digits, dot, hyphen and underscore are allowed`);
  }
  return join(directory, `${name}.json`);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it is there and belongs to another user.
    return errnoOf(error) === 'EPERM';
  }
}
