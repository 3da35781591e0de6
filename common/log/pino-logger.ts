/**
 * The real logger: JSON lines on standard error, or to a file, by pino.
 */
import { destination, type Logger as PinoLogger, pino } from 'pino';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';

/** Levels, quietest last. */
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Fields that hold secrets wherever they turn up; `Secret` is the first lock, this is the second. */
const redacted = ['password', 'userPassword', 'credentials', 'token', '*.password', '*.userPassword', '*.credentials', '*.token'];

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
      redact: { paths: redacted, censor: '[secret]' },
      serializers: { err: errorFields },
      timestamp: () => `,"ts":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    file === undefined ? destination({ dest: 2, sync: true }) : destination({ dest: file, sync: true, append: true, mkdir: true }),
  );
  return boundTo(root, base);
}

/** A logger with these fields. pino writes a field once for each child that names it; here the innermost one wins and the key stands once. */
function boundTo(root: PinoLogger, fields: Record<string, unknown>): Logger {
  const own = root.child(fields);
  return {
    child: (more) => boundTo(root, { ...fields, ...more }),
    trace: (given, message) => own.trace(given, message),
    debug: (given, message) => own.debug(given, message),
    info: (given, message) => own.info(given, message),
    warn: (given, message) => own.warn(given, message),
    error: (given, message) => own.error(given, message),
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
