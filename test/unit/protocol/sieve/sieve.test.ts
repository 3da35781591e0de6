import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileScript } from '#protocol/sieve/compile.ts';
import { glob } from '#protocol/sieve/match.ts';
import { sieveMessage } from '#protocol/sieve/message.ts';
import { SieveError, scriptBytesMax } from '#protocol/sieve/parse.ts';

const raw = Buffer.from(
  [
    'From: "Wile E." <coyote@desert.example.org>',
    'To: roadrunner@acme.example.com, Friends: pal@acme.example.com, other@isp.example;',
    'Subject: =?utf-8?q?$$$_gr=C3=BCn?=',
    ' folded',
    'Subject: second',
    'X-Spam-Flag: YES',
    'List-Id: <beep.acme.example.com>',
    '',
    'Body',
    '',
  ].join('\r\n'),
);
const message = sieveMessage(raw, { from: 'bounce@list.example', to: 'roadrunner+tag@acme.example.com' });

/** Where a script puts the message: `keep`, mailboxes, each with its flags in brackets; empty when it is discarded. */
function does(script: string, to = message): string {
  return compileScript(script)
    .run(to)
    .places.map(({ mailbox, flags }) => `${mailbox ?? 'keep'}${flags.length === 0 ? '' : `[${flags.join(' ')}]`}`)
    .join(', ');
}

/** Whether a test holds. */
const holds = (test: string, required = ''): boolean => does(`${required} if ${test} { discard; }`) === '';

describe('a script', () => {
  it.each([
    ['', 'keep'],
    ['keep;', 'keep'],
    ['discard;', ''],
    ['discard; keep;', 'keep'],
    ['stop; discard;', 'keep'],
    ['require "fileinto"; fileinto "Lists";', 'Lists'],
    ['require ["fileinto"]; fileinto "A"; fileinto "B"; fileinto "A";', 'A, B'],
    ['require "fileinto"; fileinto "inbox";', 'keep'],
    ['require ["fileinto", "copy"]; fileinto :copy "A";', 'A, keep'],
    ['require ["fileinto", "copy"]; fileinto :copy "A"; discard;', 'A'],
    ['require "imap4flags"; setflag "\\\\Seen"; addflag ["work urgent"]; removeflag "URGENT"; keep;', 'keep[\\Seen work]'],
    ['require "imap4flags"; addflag "\\\\Flagged";', 'keep[\\Flagged]'],
    ['require ["fileinto", "imap4flags"]; addflag "a"; fileinto :flags "b" "X"; fileinto "Y";', 'X[b], Y[a]'],
    ['require "imap4flags"; setflag "a"; if hasflag :contains "A" { discard; }', ''],
    ['if false { discard; } elsif true { keep; } else { discard; }', 'keep'],
    ['if false { keep; } else { if true { discard; } }', ''],
    ['if true { stop; } discard;', 'keep'],
    ['# a remark\r\n/* more\r\n */ discard /* here */ ;', ''],
    ['require "fileinto"; fileinto text: # a remark\r\nA b\r\n.\r\n;', 'A b\r\n'],
  ])('%s leads to "%s"', (script, places) => {
    expect(does(script)).toBe(places);
  });
});

describe('a test', () => {
  it.each([
    ['header "subject" "$$$ grün folded"', true],
    ['header :is "SUBJECT" "second"', true],
    ['header :contains ["x-other", "subject"] ["none", "FOLD"]', true],
    ['header :contains :comparator "i;octet" "subject" "FOLD"', false],
    ['header :matches "subject" "$$$*f?lded"', true],
    ['header :matches "subject" "$$$"', false],
    ['header "x-missing" ""', false],
    ['header :contains "x-spam-flag" ""', true],
    ['address "from" "coyote@desert.example.org"', true],
    ['address :localpart "from" "COYOTE"', true],
    ['address :domain :contains "to" "acme"', true],
    ['address :all "to" "other@isp.example"', true],
    ['address "from" "Wile E."', false],
    ['exists ["from", "to"]', true],
    ['exists ["from", "x-missing"]', false],
    ['size :over 100', true],
    ['size :over 1K', false],
    ['size :under 1M', true],
    ['allof (true, not false)', true],
    ['anyof (false, false)', false],
    ['not exists "from"', false],
  ])('%s is %s', (test, value) => {
    expect(holds(test)).toBe(value);
  });

  it('of the envelope sees who sent it and who gets it', () => {
    const envelope = 'require "envelope";';
    expect(holds('envelope "from" "bounce@list.example"', envelope)).toBe(true);
    expect(holds('envelope :localpart "to" "roadrunner+tag"', envelope)).toBe(true);
    const bounce = sieveMessage(raw, { from: '', to: 'a@isp.example' });
    expect(does('require "envelope"; if envelope :all "from" "" { discard; }', bounce)).toBe('');
  });
});

describe('a script that is refused', () => {
  it.each([
    ['keep', 'line 1: ";" was expected, and the end of the script came'],
    ['keep; require "fileinto";', '"require" comes before all other commands'],
    ['if true { require "fileinto"; }', '"require" comes before all other commands'],
    ['require "vacation";', 'the extension "vacation" is not offered here'],
    ['fileinto "A";', '"fileinto" needs: require "fileinto";'],
    ['require "fileinto"; fileinto :copy "A";', '":copy" needs: require "copy";'],
    ['require "fileinto"; fileinto ["A", "B"];', '"fileinto" takes a string'],
    ['require "fileinto"; fileinto "";', '"fileinto" takes the name of a mailbox'],
    ['\r\n\r\nredirect "a@b.example";', 'line 3: "redirect" does not run here'],
    ['reject "no";', 'the command "reject" is not known here'],
    ['setflag "a";', '"setflag" needs: require "imap4flags";'],
    ['require "imap4flags"; setflag "\\\\Recent";', 'neither a system flag nor a keyword'],
    ['require "imap4flags"; setflag "var" "a";', '"setflag" takes a string or a list of strings'],
    ['else { keep; }', '"else" has no "if" before it'],
    ['if true { keep; } else { keep; } elsif true { keep; }', '"elsif" has no "if" before it'],
    ['if keep { keep; }', 'the test "keep" is not known here'],
    ['if true keep;', '"if" takes a block'],
    ['if true;', '"if" takes a block'],
    ['if header :is :contains "a" "b" { keep; }', 'one of :is and :contains, not both'],
    ['if header :regex "a" "b" { keep; }', '"header" has no :regex'],
    ['if header :comparator "i;unicode" "a" "b" { keep; }', 'the comparator "i;unicode" is not offered here'],
    ['if header "a b" "c" { keep; }', '"a b" is no name of a header field'],
    ['if address "subject" "c" { keep; }', 'looks at fields with addresses'],
    ['if size 10 { keep; }', '"size" takes :over or :under'],
    ['if size :over "10" { keep; }', '"size" takes a number'],
    ['if not (true, true) { keep; }', '"not" takes one test'],
    ['if anyof { keep; }', '"anyof" takes tests'],
    ['if true (true) { keep; }', '"true" takes no tests'],
    ['keep { stop; }', '"keep" takes no block'],
    ['keep "x";', '"keep" takes no arguments'],
    ['"keep";', 'a command was expected'],
    ['keep; }', 'a command was expected, and "}" came'],
    ['keep; /* never ends', 'a comment has no end'],
    ['require "never ends', 'a string has no end'],
    ['keep; \u0001', 'does not belong here'],
    ['if true { '.repeat(40), 'nest more than 32 deep'],
    [`if ${'not '.repeat(40)}true { keep; }`, 'nest more than 32 deep'],
    [`# ${'x'.repeat(scriptBytesMax)}`, 'more than 65536 octets'],
  ])('%s: %s', (script, why) => {
    expect(() => compileScript(script)).toThrow(SieveError);
    expect(() => compileScript(script)).toThrow(why);
  });

  it('is refused and never worse, whatever it is', () => {
    const words = fc.constantFrom(
      'if',
      'require',
      '"',
      'text:',
      '\n',
      ';',
      '{',
      '}',
      '(',
      ')',
      '[',
      ']',
      ':is',
      'header',
      '"a"',
      'keep',
      '1K',
      ',',
      '/*',
      '.',
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 40 }), (parts) => {
        try {
          compileScript(parts.join(' '));
        } catch (error) {
          expect(error).toBeInstanceOf(SieveError);
        }
      }),
    );
  });
});

describe('a script that would take too long', () => {
  it('is given up', () => {
    const long = sieveMessage(Buffer.from(`X: ${'a'.repeat(60_000)}\r\n\r\n`), { from: '', to: '' });
    expect(() => does(`if header :matches "x" "${'a*'.repeat(1000)}b" { discard; }`, long)).toThrow(SieveError);
  });
});

describe(':matches', () => {
  it.each([
    ['abc', 'a*c', true],
    ['abc', '*', true],
    ['', '*', true],
    ['', '?', false],
    ['abc', 'a?c', true],
    ['a*c', 'a\\*c', true],
    ['abc', 'a\\*c', false],
    ['aXbXc', 'a*X*c', true],
    ['ü', '?', true],
  ])('takes "%s" by "%s": %s', (value, pattern, expected) => {
    expect(glob(value, pattern)).toBe(expected);
  });

  it('does not try all ways', () => {
    expect(glob('a'.repeat(5000), `${'a*'.repeat(1000)}b`)).toBe(false);
  });
});
