import { describe, expect, it } from 'vitest';
import { parsePathAndParameters } from '#protocol/smtp/path.ts';
import { formatReply, joinReply, parseReplyLine } from '#protocol/smtp/reply.ts';

describe('paths of MAIL and RCPT', () => {
  it.each([
    ['<a@b.example>', 'a@b.example'],
    [' <a@b.example>', 'a@b.example'],
    ['<@r.example,@s.example:a@b.example>', 'a@b.example'],
    ['<"a b"@b.example>', '"a b"@b.example'],
    ['<"a>b@c"@b.example>', '"a>b@c"@b.example'],
    ['<"plain.local"@b.example>', 'plain.local@b.example'],
    ['<jörg@bücher.example>', 'jörg@bücher.example'],
    ['<a@[192.0.2.1]>', 'a@[192.0.2.1]'],
    ['<a@[IPv6:2001:db8::1]>', 'a@[IPv6:2001:db8::1]'],
  ])('reads %s', (text, address) => {
    expect(parsePathAndParameters(text, 'forward')).toMatchObject({ ok: true, path: { address } });
  });

  it.each([
    'a@b.example',
    '<a@b.example',
    '<a>',
    '<@b.example>',
    '<a@>',
    '<a b@c.example>',
    '<.a@b.example>',
    '<a..b@c.example>',
    '<a@-b.example>',
    '<a\r\n@b.example>',
    '<a\u0000@b.example>',
    `<${'x'.repeat(65)}@b.example>`,
    `<a@${'x'.repeat(300)}>`,
    '<a@b.example>SIZE=1',
    '<a@b.example> SIZE=1 SIZE=2',
    '<a@b.example> =1',
    '<a@b.example> X=a=b',
    '<>',
  ])('refuses %j', (text) => {
    expect(parsePathAndParameters(text, 'forward').ok).toBe(false);
  });

  it('takes the null path from senders only', () => {
    expect(parsePathAndParameters('<>', 'reverse')).toMatchObject({ ok: true, path: { address: '' } });
  });

  it('reads parameters in any case', () => {
    const parsed = parsePathAndParameters('<a@b.example> size=100 Body=8BITMIME smtputf8', 'reverse');
    expect(parsed.ok && [...parsed.parameters]).toEqual([
      ['SIZE', '100'],
      ['BODY', '8BITMIME'],
      ['SMTPUTF8', undefined],
    ]);
  });
});

describe('replies', () => {
  it('have the enhanced code on every line and never a line end of the text', () => {
    expect(formatReply(550, '5.7.1', ['no', 'way\r\n250 yes'])).toBe('550-5.7.1 no\r\n550 5.7.1 way 250 yes\r\n');
  });

  it('are read back', () => {
    expect(parseReplyLine('250-PIPELINING')).toEqual({ code: 250, isLast: false, text: 'PIPELINING' });
    expect(parseReplyLine('354')).toEqual({ code: 354, isLast: true, text: '' });
    expect(joinReply(550, ['5.1.1 no', '5.1.1 such'])).toEqual({ code: 550, enhanced: '5.1.1', text: 'no\nsuch' });
  });

  it.each(['', '25 OK', '2500 OK', '150 OK', '250_OK', 'OK'])('are not read from %j', (line) => {
    expect(parseReplyLine(line)).toBeUndefined();
  });
});
