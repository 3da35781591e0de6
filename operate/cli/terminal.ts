/** The terminal, as the command line is given it; the real one is made in main.ts. */
import type { Clock } from '#common/clock.ts';

/** Everything a verb may touch of the outside world. */
export interface Terminal {
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  /** Standard output is a terminal: colour and symbols are welcome. */
  readonly isTerminal: boolean;
  /** Somebody can be asked. */
  readonly isInteractive: boolean;
  out(text: string): void;
  /** Resolves once there is room for more of it; with false when nobody reads it any more. */
  flushed(): Promise<boolean>;
  err(text: string): void;
  /** Whole standard input, at most 64 kB. */
  readInput(): Promise<string>;
  /** One line typed as an answer. */
  ask(question: string): Promise<string>;
  readFile(path: string): Promise<string>;
}

/** How the command ended. Scripts may rely on these. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  degraded: 4,
  conflict: 5,
  denied: 6,
  /** Timeout, or an answer that some node is missing from. */
  partial: 7,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];
