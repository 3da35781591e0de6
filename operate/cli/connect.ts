/**
 * Finding the admin API and asking it. In this order: `--url`, `ARCHIPELAGO_URL`, the context named by `--context`, the only context there is.
 */

import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { type JsonRequest, requestJson } from '#common/http/client.ts';
import { requestStream, type StreamAnswer, type StreamRequest } from '#common/http/stream-client.ts';
import { Secret } from '#common/secret.ts';
import { type CliContext, contextDirectory, readContexts } from './context.ts';
import { type ExitCode, exitCodes, type Terminal } from './terminal.ts';

/** Options that every verb takes. */
export interface ConnectOptions {
  readonly url?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
  readonly context?: string;
  /** Seconds. */
  readonly timeout?: number;
}

/** Asks the admin API. */
export type AskApi = <T>(path: string, request?: Pick<JsonRequest, 'method' | 'body' | 'timeoutMs'>) => Promise<T>;

/** Finds the admin API; rejects with words on how to name one when there is none. */
export async function connect(terminal: Terminal, options: ConnectOptions): Promise<AskApi> {
  const target = await findTarget(terminal, options);
  const timeoutMs = (options.timeout ?? 30) * 1000;
  return async <T>(path: string, request: Pick<JsonRequest, 'method' | 'body' | 'timeoutMs'> = {}): Promise<T> => {
    const progress = startProgress(terminal);
    try {
      const url = `${target.url.replace(/\/$/, '')}${path}`;
      const answer = await requestJson(terminal.clock, { timeoutMs, ...request, url, token: target.token, ca: target.ca });
      return answer.body as T;
    } finally {
      progress.end();
    }
  };
}

/** Asks for a stream, or sends one; see `requestStream`. */
export type AskStream = (path: string, request: Pick<StreamRequest, 'method' | 'contentType' | 'accept' | 'body'>) => Promise<StreamAnswer>;

/** As `connect`, for streams. */
export async function connectStream(terminal: Terminal, options: ConnectOptions): Promise<AskStream> {
  const target = await findTarget(terminal, options);
  return (path, request) =>
    requestStream(terminal.clock, {
      ...request,
      url: `${target.url.replace(/\/$/, '')}${path}`,
      token: target.token,
      ca: target.ca,
      silenceMs: (options.timeout ?? 120) * 1000,
    });
}

interface Target {
  readonly url: string;
  readonly token: Secret<string>;
  readonly ca: string | undefined;
}

async function findTarget(terminal: Terminal, options: ConnectOptions): Promise<Target> {
  const { env } = terminal;
  const url = options.url ?? (options.context === undefined ? nonEmpty(env.ARCHIPELAGO_URL) : undefined);
  const tokenFile = options.tokenFile ?? nonEmpty(env.ARCHIPELAGO_TOKEN_FILE);
  const caFile = options.caFile ?? nonEmpty(env.ARCHIPELAGO_CA_FILE);
  const contexts = await readContexts(env);
  const known = url === undefined ? chooseContext(contexts, options.context, env) : contexts.find((each) => sameUrl(each.url, url));
  const address = url ?? known?.url;
  if (address === undefined || !URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol)) {
    throw new PlatformError('CONFIG_INVALID', `"${address ?? ''}" is not an http:// or https:// URL`);
  }
  const token = tokenFile === undefined ? known?.token : firstLine(await readText(terminal, tokenFile, 'token'));
  if (token === undefined || token === '') {
    throw new PlatformError('CONFIG_INVALID', `no token for ${address}`, {
      fields: { hint: 'give --token-file FILE or set ARCHIPELAGO_TOKEN_FILE' },
    });
  }
  return { url: address, token: new Secret(token), ca: caFile === undefined ? known?.ca : await readText(terminal, caFile, 'CA') };
}

function chooseContext(contexts: readonly CliContext[], wanted: string | undefined, env: NodeJS.ProcessEnv): CliContext {
  const names = contexts.map((context) => context.name).join(', ');
  if (wanted !== undefined) {
    const found = contexts.find((context) => context.name === wanted);
    if (found !== undefined) return found;
    throw new PlatformError(
      'CONFIG_INVALID',
      `no context "${wanted}" in ${contextDirectory(env)}; there ${names === '' ? 'is none' : `are: ${names}`}`,
    );
  }
  const [only, second] = contexts;
  if (only !== undefined && second === undefined) return only;
  if (only !== undefined) {
    throw new PlatformError('CONFIG_INVALID', `several installations are known: ${names}`, {
      fields: { hint: 'choose one with --context NAME' },
    });
  }
  throw new PlatformError('NET_CONNECT_FAILED', 'no running installation is known on this machine', {
    fields: { hint: 'start one with "archipelago demo", or name one: --url URL --token-file FILE [--ca-file FILE]' },
  });
}

async function readText(terminal: Terminal, path: string, what: string): Promise<string> {
  try {
    return await terminal.readFile(path);
  } catch (error) {
    throw new PlatformError('CONFIG_UNREADABLE', `the ${what} file ${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** A line on standard error with the time waited, from the second second on; only where somebody looks. */
export function startProgress(terminal: Terminal): { end(): void } {
  if (!terminal.isTerminal) return { end: () => {} };
  let seconds = 0;
  const timer = terminal.clock.every(1000, () => {
    seconds += 1;
    if (seconds > 1) terminal.err(`\rwaiting for the answer: ${seconds} s `);
  });
  return {
    end: () => {
      timer.cancel();
      if (seconds > 1) terminal.err(`\r${' '.repeat(40)}\r`);
    },
  };
}

/** Which exit code a failure has. */
export function exitCodeOf(error: PlatformError): ExitCode {
  if (error.code === 'NET_TIMEOUT') return exitCodes.partial;
  switch (error.kind) {
    case 'not-found':
      return exitCodes.notFound;
    case 'conflict':
    case 'moved':
      return exitCodes.conflict;
    case 'denied':
    case 'auth':
      return exitCodes.denied;
    case 'protocol':
      return exitCodes.usage;
    default:
      return exitCodes.failed;
  }
}

const nonEmpty = (text: string | undefined): string | undefined => (text === '' ? undefined : text);
const firstLine = (text: string): string => (text.split('\n')[0] ?? '').trim();
const sameUrl = (a: string, b: string): boolean => a.replace(/\/$/, '') === b.replace(/\/$/, '');
