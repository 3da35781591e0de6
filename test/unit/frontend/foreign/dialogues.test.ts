import { describe, expect, it } from 'vitest';
import type { ForeignDialogue, ForeignDialogueOptions } from '#frontend/foreign/dialogues/dialogue.ts';
import { ForeignImap } from '#frontend/foreign/dialogues/imap.ts';
import { ForeignPop3 } from '#frontend/foreign/dialogues/pop3.ts';
import { ForeignSieve } from '#frontend/foreign/dialogues/sieve.ts';
import { ForeignSubmission } from '#frontend/foreign/dialogues/submission.ts';

const alice = { authenticationId: 'alice@isp.example', authorizationId: '', password: 'won"der\\land' };
const master = { authenticationId: 'master', authorizationId: 'alice@isp.example', password: 'key' };
const client = { address: '192.0.2.7', port: 4711, localAddress: '192.0.2.1', localPort: 5000, sessionId: 'sid' };
const base: ForeignDialogueOptions = { credentials: alice, startTls: false, early: true, client: undefined };

/** Feeds the server's lines and writes the dialogue down. */
function transcript(dialogue: ForeignDialogue, server: readonly string[]): string[] {
  const said: string[] = [];
  const send = (bytes: string): void => {
    for (const line of bytes.split('\r\n').slice(0, -1)) said.push(`C: ${line}`);
  };
  send(dialogue.opening);
  for (const line of server) {
    said.push(`S: ${line}`);
    const step = dialogue.line(line);
    if (step.kind === 'send') send(step.bytes);
    if (step.kind === 'secure') {
      said.push('TLS');
      send(dialogue.secured());
    }
    if (step.kind === 'done') said.push(`done ${step.capabilities.join(' ')}`.trim());
    if (step.kind === 'failed') said.push(step.error.code);
  }
  return said;
}

const plain = (text: string): string => Buffer.from(text).toString('base64');
const login = 'C: L LOGIN "alice@isp.example" "won\\"der\\\\land"';

describe('the IMAP dialogue', () => {
  it('sends the login with the connection and keeps what the server offers after it', () => {
    expect(transcript(new ForeignImap(base), ['* OK ready', 'L OK [CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE STARTTLS] in'])).toEqual([
      login,
      'S: * OK ready',
      'S: L OK [CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE STARTTLS] in',
      'done IMAP4rev1 IDLE',
    ]);
  });

  it('asks for the capabilities where the answer has none', () => {
    const server = ['* OK ready', 'L OK in', '* CAPABILITY IMAP4rev1 IDLE', 'C OK done'];
    expect(transcript(new ForeignImap({ ...base, early: false }), server)).toEqual([
      'S: * OK ready',
      login,
      'S: L OK in',
      'C: C CAPABILITY',
      'S: * CAPABILITY IMAP4rev1 IDLE',
      'S: C OK done',
      'done IMAP4rev1 IDLE',
    ]);
  });

  it('sends no password before TLS where TLS is to be started', () => {
    expect(transcript(new ForeignImap({ ...base, startTls: true }), ['* OK ready', 'T OK go', 'L OK [CAPABILITY IMAP4rev1] in'])).toEqual([
      'S: * OK ready',
      'C: T STARTTLS',
      'S: T OK go',
      'TLS',
      login,
      'S: L OK [CAPABILITY IMAP4rev1] in',
      'done IMAP4rev1',
    ]);
  });

  it('gives up where TLS is refused', () => {
    expect(transcript(new ForeignImap({ ...base, startTls: true }), ['* OK ready', 'T BAD no']).slice(-1)).toEqual(['FOREIGN_REFUSED']);
  });

  it('tells the client’s address, and logs a master user in on behalf of the account', () => {
    expect(transcript(new ForeignImap({ ...base, credentials: master, client }), ['* OK ready', '* ID NIL', 'I OK', '+ '])).toEqual([
      'C: I ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "4711" "x-connected-ip" "192.0.2.1" "x-connected-port" "5000" "x-session-id" "sid")',
      `C: L AUTHENTICATE PLAIN ${plain('alice@isp.example\0master\0key')}`,
      'S: * OK ready',
      'S: * ID NIL',
      'S: I OK',
      'S: + ',
      `C: ${plain('alice@isp.example\0master\0key')}`,
    ]);
  });

  it('puts what no quoted string can hold into PLAIN', () => {
    const { opening } = new ForeignImap({ ...base, credentials: { ...alice, password: 'p\u00e4ss\r\nx LOGOUT' } });
    expect(opening).toBe(`L AUTHENTICATE PLAIN ${plain('\0alice@isp.example\0p\u00e4ss\r\nx LOGOUT')}\r\n`);
  });

  it.each([
    ['L NO [AUTHENTICATIONFAILED] no', 'AUTH_FAILED'],
    ['L NO no', 'AUTH_FAILED'],
    ['L NO [UNAVAILABLE] later', 'FOREIGN_UNAVAILABLE'],
    ['L NO [PRIVACYREQUIRED] TLS first', 'FOREIGN_REFUSED'],
    ['L BAD what', 'FOREIGN_REFUSED'],
    ['* BYE going down', 'NET_CLOSED'],
  ])('makes of "%s" %s', (line, code) => {
    expect(transcript(new ForeignImap(base), ['* OK ready', line]).at(-1)).toBe(code);
  });

  it.each(['+OK POP3', '220 smtp', 'HTTP/1.1 400 Bad Request'])('takes "%s" for no IMAP server', (line) => {
    expect(transcript(new ForeignImap(base), [line]).at(-1)).toBe('FOREIGN_PROTOCOL');
  });
});

describe('the POP3 dialogue', () => {
  it('sends name and password in one piece', () => {
    const credentials = { ...alice, password: 'a pass word' };
    expect(transcript(new ForeignPop3({ ...base, credentials, client }), ['+OK ready', '+OK', '+OK', '+OK in'])).toEqual([
      'C: XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=sid',
      'C: USER alice@isp.example',
      'C: PASS a pass word',
      'S: +OK ready',
      'S: +OK',
      'S: +OK',
      'S: +OK in',
      'done',
    ]);
  });

  it('uses AUTH PLAIN for a master user, with and without an initial response', () => {
    const message = plain('alice@isp.example\0master\0key');
    expect(transcript(new ForeignPop3({ ...base, credentials: master, startTls: true }), ['+OK', '+OK', '+ ', '+OK'])).toEqual([
      'S: +OK',
      'C: STLS',
      'S: +OK',
      'TLS',
      `C: AUTH PLAIN ${message}`,
      'S: + ',
      `C: ${message}`,
      'S: +OK',
      'done',
    ]);
  });

  it.each([
    ['-ERR [AUTH] no', 'AUTH_FAILED'],
    ['-ERR no', 'AUTH_FAILED'],
    ['-ERR [SYS/TEMP] later', 'FOREIGN_UNAVAILABLE'],
    ['-ERR [IN-USE] locked', 'FOREIGN_UNAVAILABLE'],
  ])('makes of "%s" %s', (line, code) => {
    expect(transcript(new ForeignPop3(base), ['+OK ready', '+OK', line]).at(-1)).toBe(code);
  });
});

describe('the submission dialogue', () => {
  it('starts TLS, tells the client’s address and has the password judged', () => {
    const dialogue = new ForeignSubmission({ ...base, startTls: true, client }, 'EHLO front1');
    const server = [
      '220 hi',
      '250-x',
      '250 STARTTLS',
      '220 go',
      '250-x',
      '250-XCLIENT ADDR PORT',
      '250 AUTH PLAIN',
      '220 anew',
      '250 x',
      '235 in',
    ];
    expect(transcript(dialogue, server).filter((line) => !line.startsWith('S:'))).toEqual([
      'C: EHLO front1',
      'C: STARTTLS',
      'TLS',
      'C: EHLO front1',
      'C: XCLIENT ADDR=192.0.2.7 PORT=4711',
      'C: EHLO front1',
      `C: AUTH PLAIN ${plain('\0alice@isp.example\0won"der\\land')}`,
      'done',
    ]);
  });

  it.each([
    ['535 5.7.8 no', 'AUTH_FAILED'],
    ['454 4.7.0 later', 'FOREIGN_UNAVAILABLE'],
    ['538 5.7.11 TLS first', 'FOREIGN_REFUSED'],
    ['what', 'FOREIGN_PROTOCOL'],
  ])('makes of "%s" %s', (line, code) => {
    expect(transcript(new ForeignSubmission(base, 'EHLO front1'), ['220 hi', '250 x', line]).at(-1)).toBe(code);
  });
});

describe('the ManageSieve dialogue', () => {
  it('waits for the capabilities, starts TLS and authenticates', () => {
    const server = ['"IMPLEMENTATION" "x"', 'OK "ready"', 'OK "go"', '"SASL" "PLAIN"', 'OK', 'OK "in"'];
    expect(transcript(new ForeignSieve({ ...base, startTls: true }), server).filter((line) => !line.startsWith('S:'))).toEqual([
      'C: STARTTLS',
      'TLS',
      `C: AUTHENTICATE "PLAIN" "${plain('\0alice@isp.example\0won"der\\land')}"`,
      'done',
    ]);
  });

  it.each([
    ['NO "no"', 'AUTH_FAILED'],
    ['NO (TRYLATER) "later"', 'FOREIGN_UNAVAILABLE'],
    ['BYE "down"', 'NET_CLOSED'],
  ])('makes of "%s" %s', (line, code) => {
    expect(transcript(new ForeignSieve(base), ['OK', line]).at(-1)).toBe(code);
  });
});

describe('a token that is passed on', () => {
  const tokenOf = (mechanism: 'OAUTHBEARER' | 'XOAUTH2') => ({
    ...base,
    early: false,
    credentials: { authenticationId: 'alice@isp.example', authorizationId: '', password: '', token: { mechanism, value: 'abc.def' } },
  });
  const bearer = plain('n,a=alice@isp.example,\x01auth=Bearer abc.def\x01\x01');
  const xoauth2 = plain('user=alice@isp.example\x01auth=Bearer abc.def\x01\x01');
  const why = plain('{"status":"invalid_token"}');

  it('goes to IMAP by the mechanism that it came by, and a refusal is taken note of', () => {
    const refused = ['* OK ready', `+ ${why}`, 'L NO [AUTHENTICATIONFAILED] no'];
    expect(transcript(new ForeignImap(tokenOf('OAUTHBEARER')), refused)).toEqual([
      'S: * OK ready',
      `C: L AUTHENTICATE OAUTHBEARER ${bearer}`,
      `S: + ${why}`,
      'C: AQ==',
      'S: L NO [AUTHENTICATIONFAILED] no',
      'AUTH_FAILED',
    ]);
    const accepted = ['* OK ready', '+ ', 'L OK [CAPABILITY IMAP4rev1] in'];
    expect(transcript(new ForeignImap(tokenOf('XOAUTH2')), accepted)).toEqual([
      'S: * OK ready',
      `C: L AUTHENTICATE XOAUTH2 ${xoauth2}`,
      'S: + ',
      `C: ${xoauth2}`,
      'S: L OK [CAPABILITY IMAP4rev1] in',
      'done IMAP4rev1',
    ]);
  });

  it('goes to POP3, submission and ManageSieve', () => {
    expect(transcript(new ForeignPop3(tokenOf('XOAUTH2')), ['+OK ready', `+ ${why}`, '-ERR no'])).toEqual([
      'S: +OK ready',
      `C: AUTH XOAUTH2 ${xoauth2}`,
      `S: + ${why}`,
      'C: ',
      'S: -ERR no',
      'AUTH_FAILED',
    ]);
    const smtp = ['220 ready', '250 host', `334 ${why}`, '535 5.7.8 no'];
    expect(transcript(new ForeignSubmission(tokenOf('OAUTHBEARER'), 'EHLO us'), smtp).slice(-4)).toEqual([
      `S: 334 ${why}`,
      'C: AQ==',
      'S: 535 5.7.8 no',
      'AUTH_FAILED',
    ]);
    const sieve = ['OK "ready"', `"${why}"`, 'NO "no"'];
    expect(transcript(new ForeignSieve(tokenOf('OAUTHBEARER')), sieve)).toEqual([
      'S: OK "ready"',
      `C: AUTHENTICATE "OAUTHBEARER" "${bearer}"`,
      `S: "${why}"`,
      'C: "AQ=="',
      'S: NO "no"',
      'AUTH_FAILED',
    ]);
  });
});
