/**
 * Housekeeping by the calendar: cron expressions in UTC. For work that may come late or not at all without harm, never for safety.
 * The only importer of node-cron.
 */
import { schedule, validate } from 'node-cron';
import { PlatformError } from '#common/errors/platform-error.ts';

/** Something that happens by the calendar until it is cancelled. */
export interface Scheduled {
  cancel(): void;
}

/** Runs `work` whenever the expression says (five fields, UTC); a run that is due while one is under way is left out. */
export type Schedule = (expression: string, name: string, work: () => Promise<void>) => Scheduled;

/** Whether a cron expression can be used. */
export function isCronExpression(expression: string): boolean {
  return validate(expression);
}

/** The real calendar. `work` handles its own failures. */
export const cronSchedule: Schedule = (expression, name, work) => {
  if (!validate(expression)) {
    throw new PlatformError('CONFIG_INVALID', `"${expression}" is no cron expression for ${name}; expected five fields, e.g. "17 3 * * *"`);
  }
  const task = schedule(expression, work, { name, timezone: 'UTC', noOverlap: true });
  return {
    cancel: () => {
      void task.destroy();
    },
  };
};
