/**
 * IDLE (RFC 9051 §6.3.13): updates go out as they happen, until the client says DONE.
 */
import { type Command, ok } from './command.ts';

/** RFC 9051 §6.3.13. */
export const idle: Command = {
  async run(session, reader) {
    reader.end();
    await session.out.line('+ idling');
    for (;;) {
      const line = session.nextLine();
      if (line !== undefined) {
        if (line.toString('latin1').trim().toUpperCase() === 'DONE') return ok('IDLE completed');
        return { status: 'BAD', code: 'CLIENTBUG', text: 'Expected DONE' };
      }
      await session.sync(true);
      await session.out.flush();
      if (!(await session.wait())) return ok('IDLE ended');
    }
  },
};
