/**
 * The real logger: JSON lines on standard error, or to a file, by pino.
 */
import { type DestinationStream, destination, type Logger as PinoLogger, pino } from 'pino';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger, LogLevel } from '#common/log/logger.ts';

/** Fields that hold secrets, in a line or in an object of it; `Secret` is the first lock, this is the second. */
const secretNames: ReadonlySet<string> = new Set(['password', 'userPassword', 'credentials', 'token']);
const censor = '[secret]';

/**
 * Makes the process's logger.
 *
 * @param file a path to append to; standard error when missing
 */
export function createLogger(level: LogLevel, base: Record<string, unknown>, file?: string): Logger {
  const root = pino(
    {
      level,
      base: null,
      serializers: { err: (error: unknown) => withoutSecrets(errorFields(error), 0) },
      timestamp: makeTimestamp(),
      formatters: { level: (label) => ({ level: label }), log: (fields) => withoutSecrets(fields, 1) },
    },
    inTurns(file === undefined ? destination({ dest: 2, sync: true }) : destination({ dest: file, sync: true, append: true, mkdir: true })),
  );
  return boundTo(root, base);
}

/** Of every logger of this process. */
const flushes: (() => void)[] = [];

/** How long a line may wait for others to go with. */
const gatherMs = 5;
/** Characters that wait for no others. */
const gatheredMax = 65_536;

/** Lines that come close upon each other leave in one system call, the last ones when the process exits. */
function inTurns(to: ReturnType<typeof destination>): DestinationStream {
  let lines = '';
  const flush = (): void => {
    const text = lines;
    lines = '';
    if (text !== '') to.write(text);
  };
  if (flushes.length === 0) process.on('exit', () => flushes.forEach((each) => void each()));
  flushes.push(flush);
  return {
    write(line) {
      if (lines === '') setTimeout(flush, gatherMs);
      lines += line;
      if (lines.length >= gatheredMax) flush();
    },
  };
}

/** A logger with these fields. pino writes a field once for each child that names it; here the innermost one wins and the key stands once. */
function boundTo(root: PinoLogger, fields: Record<string, unknown>, level?: LogLevel): Logger {
  const own = root.child(withoutSecrets(fields, 1), level === undefined ? {} : { level });
  return {
    child: (more) => boundTo(root, { ...fields, ...more }, level),
    atLevel: (other) => boundTo(root, fields, other),
    trace: (given, message) => own.trace(given, message),
    debug: (given, message) => own.debug(given, message),
    info: (given, message) => own.info(given, message),
    warn: (given, message) => own.warn(given, message),
    error: (given, message) => own.error(given, message),
  };
}

/**
 * The same fields without secrets; a copy only where there are some. pino's own redaction copies and walks every line, which took twice as
 * long as writing it.
 *
 * @param depth levels of objects below this one that are looked at
 */
function withoutSecrets<T>(fields: T, depth: number): T {
  if (typeof fields !== 'object' || fields === null || 'toJSON' in fields) return fields;
  const given = fields as Record<string, unknown>;
  let found = given;
  for (const name in given) {
    const value = given[name];
    let safe = value;
    if (secretNames.has(name)) safe = value === undefined ? undefined : censor;
    // What is an error is written by its serializer.
    else if (typeof value === 'object' && value !== null && depth > 0 && !(value instanceof Error)) safe = withoutSecrets(value, depth - 1);
    if (safe === value) continue;
    if (found === given) found = { ...given };
    found[name] = safe;
  }
  return found as T;
}

/** Lines come many in a millisecond, and the text of a time is dear. */
function makeTimestamp(): () => string {
  let atMs = -1;
  let text = '';
  return () => {
    const nowMs = Date.now();
    if (nowMs !== atMs) {
      atMs = nowMs;
      text = `,"ts":"${new Date(nowMs).toISOString()}"`;
    }
    return text;
  };
}

function errorFields(error: unknown): unknown {
  if (error instanceof PlatformError) {
    return {
      code: error.code,
      kind: error.kind,
      message: error.message,
      ...error.fields,
      cause: error.cause === undefined ? undefined : String(error.cause),
    };
  }
  return error instanceof Error ? { message: error.message, stack: error.stack } : error;
}
