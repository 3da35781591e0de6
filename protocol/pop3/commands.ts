/**
 * Commands of the transaction state (RFC 1939 §5, RFC 2449 §5), from a line to what it asks for. Keywords are case-insensitive,
 * separated from arguments by one space; clients that send more spaces are understood.
 */

/** Longest command line with its CRLF (RFC 2449 §4). */
export const pop3CommandBytesMax = 255;

/** What a line asks for. Message numbers are as sent: the maildrop decides whether they exist. */
export type Pop3Command =
  | { readonly verb: 'STAT' | 'NOOP' | 'RSET' | 'QUIT' | 'CAPA' }
  | { readonly verb: 'LIST' | 'UIDL'; readonly message: number | undefined }
  | { readonly verb: 'RETR' | 'DELE'; readonly message: number }
  | { readonly verb: 'TOP'; readonly message: number; readonly lines: number };

/** A command, or the sentence that says what is wrong with the line. */
export type Pop3ParseResult = { readonly ok: true; readonly command: Pop3Command } | { readonly ok: false; readonly problem: string };

/** Parses one line without its line end. */
export function parsePop3Command(line: Buffer): Pop3ParseResult {
  const words = line
    .toString('latin1')
    .split(' ')
    .filter((word) => word !== '');
  const verb = words[0]?.toUpperCase() ?? '';
  const args = words.slice(1);
  switch (verb) {
    case 'STAT':
    case 'NOOP':
    case 'RSET':
    case 'QUIT':
    case 'CAPA':
      return args.length === 0 ? { ok: true, command: { verb } } : wrong(`${verb} takes no argument`);
    case 'LIST':
    case 'UIDL': {
      if (args.length === 0) return { ok: true, command: { verb, message: undefined } };
      const message = numberOf(args[0], 1);
      if (args.length > 1 || message === undefined) return wrong(`${verb} takes one message number at most`);
      return { ok: true, command: { verb, message } };
    }
    case 'RETR':
    case 'DELE': {
      const message = numberOf(args[0], 1);
      if (args.length !== 1 || message === undefined) return wrong(`${verb} needs one message number`);
      return { ok: true, command: { verb, message } };
    }
    case 'TOP': {
      const message = numberOf(args[0], 1);
      const lines = numberOf(args[1], 0);
      if (args.length !== 2 || message === undefined || lines === undefined)
        return wrong('TOP needs a message number and a number of lines');
      return { ok: true, command: { verb, message, lines } };
    }
    case 'USER':
    case 'PASS':
    case 'APOP':
    case 'AUTH':
    case 'STLS':
      return wrong(`${verb} is not allowed after login`);
    default:
      return wrong('Unknown command');
  }
}

function wrong(problem: string): Pop3ParseResult {
  return { ok: false, problem };
}

/** A decimal number of at most ten digits and at least `min`. */
function numberOf(word: string | undefined, min: number): number | undefined {
  if (word === undefined || !/^[0-9]{1,10}$/.test(word)) return undefined;
  const value = Number(word);
  return value >= min ? value : undefined;
}
