/**
 * Logging, as the rest of the code is given it. The real one is pino-logger.ts, the only importer of pino.
 *
 * One name per thing, everywhere: `service`, `node`, `component`, `subset`, `cluster`, `sessionId`, `protocol`, `peer`, `clientIp`,
 * `account`, `hostServer`, `term`, `changeNumber`, `replica`, `durationMs`, `outcome`, `errCode`.
 */
export interface Logger {
  /** A logger that adds these fields to every line. */
  child(fields: Record<string, unknown>): Logger;
  /** The same logger at a level of its own, whatever that of the process is. Missing where lines are not chosen by level. */
  atLevel?(level: LogLevel): Logger;
  trace(fields: Record<string, unknown>, message: string): void;
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  /** Someone may look tomorrow. */
  warn(fields: Record<string, unknown>, message: string): void;
  /** Someone should look now. */
  error(fields: Record<string, unknown>, message: string): void;
}

/** Levels, quietest last. */
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Drops everything. */
export const silentLogger: Logger = {
  child: () => silentLogger,
  trace: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
};
