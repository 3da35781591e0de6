/**
 * IDLE (RFC 9051 §6.3.13): updates go out as they happen, until the client says DONE.
 */
import { type Command, type ImapSession, ok, type TaggedReply } from './command.ts';

/** RFC 9051 §6.3.13. */
export const idle: Command = {
  async run(session, reader) {
    reader.end();
    await session.out.line('+ idling');
    return idleUntilDone(session);
  },
};

/** From the continuation on; also where a session goes on that idled at another member. */
export async function idleUntilDone(session: ImapSession): Promise<TaggedReply> {
  for (;;) {
    const line = session.nextLine();
    if (line !== undefined) {
      if (line.toString('latin1').trim().toUpperCase() === 'DONE') return ok('IDLE completed');
      return { status: 'BAD', code: 'CLIENTBUG', text: 'Expected DONE' };
    }
    await session.sync(true);
    await session.out.flush();
    if (!(await session.wait())) return session.isMoving ? restsInIdle : ok('IDLE ended');
  }
}

/** Not an answer: the session is to go on idling at another member. */
export const restsInIdle: TaggedReply = { status: 'OK', text: 'IDLE goes on' };
