/**
 * Commands that touch no mailbox: CAPABILITY, NOOP, CHECK, LOGOUT, ID, NAMESPACE, ENABLE, and those that only make sense before login.
 */
import { syntaxError } from '#protocol/imap/reader.ts';
import { imapCapabilities } from './capabilities.ts';
import { type Command, ok } from './command.ts';

/** RFC 9051 §6.1.1. */
export const capability: Command = {
  async run(session, reader) {
    reader.end();
    await session.out.line(`* CAPABILITY ${imapCapabilities.join(' ')}`);
    return ok('CAPABILITY completed');
  },
};

/** RFC 9051 §6.1.2: the way a client asks for updates. */
export const noop: Command = {
  run(_session, reader) {
    reader.end();
    return ok('NOOP completed');
  },
};

/** RFC 3501 §6.4.1. Everything that was answered is durable already. */
export const check: Command = {
  inSelected: true,
  run(_session, reader) {
    reader.end();
    return ok('CHECK completed');
  },
};

/** RFC 9051 §6.1.3. */
export const logout: Command = {
  async run(session, reader) {
    reader.end();
    await session.out.line('* BYE Logging out');
    session.isLoggingOut = true;
    return ok('LOGOUT completed');
  },
};

/** RFC 2971. What the client says of itself is read and not kept. */
export const id: Command = {
  async run(session, reader) {
    if (!reader.takeKeyword('NIL')) {
      let fields = 0;
      reader.list(() => {
        reader.string();
        reader.space();
        reader.nstring();
        fields += 1;
        // RFC 2971 §3.3: at most thirty pairs.
        if (fields > 30) throw syntaxError('ID has more than 30 fields');
      });
    }
    reader.end();
    await session.out.line('* ID ("name" "Archipelago")');
    return ok('ID completed');
  },
};

/** RFC 2342: one personal namespace. */
export const namespace: Command = {
  async run(session, reader) {
    reader.end();
    await session.out.line('* NAMESPACE (("" "/")) NIL NIL');
    return ok('NAMESPACE completed');
  },
};

/** RFC 9051 §6.3.1: what is not known is passed over. */
export const enable: Command = {
  async run(session, reader) {
    const enabled: string[] = [];
    do {
      const name = reader.atom().toUpperCase();
      if (name === 'CONDSTORE' && !session.isCondstore) {
        session.isCondstore = true;
        enabled.push(name);
      }
    } while (reader.take(' ') && !reader.isAtEnd);
    reader.end();
    await session.out.line(`* ENABLED${enabled.map((name) => ` ${name}`).join('')}`);
    return ok('ENABLE completed');
  },
};

/** LOGIN, AUTHENTICATE and STARTTLS (RFC 9051 §6.2) belong to the not authenticated state, which the frontend has dealt with. */
export const beforeLogin: Command = {
  run() {
    return { status: 'BAD', code: 'CLIENTBUG', text: 'Already authenticated' };
  },
};
