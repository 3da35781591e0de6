import { describe, expect, it } from 'vitest';
import { domainOf, parseAccountName, tryParseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
import { clusterOf, parseMemberName } from '#common/host-server.ts';

describe('account names', () => {
  it.each([
    ['Alice@ISP.Example', 'alice@isp.example'],
    ['a+b@isp.example.', 'a+b@isp.example'],
    ["o'brien@isp.example", "o'brien@isp.example"],
    ['jörg@bücher.example', 'jörg@xn--bcher-kva.example'],
  ])('folds %s to %s', (text, folded) => {
    expect(parseAccountName(text)).toBe(folded);
  });

  it.each([
    '',
    '@isp.example',
    'alice@',
    'al ice@isp.example',
    'a..b@isp.example',
    '.a@isp.example',
    'a/b@isp.example',
    `${'x'.repeat(65)}@isp.example`,
    'a\u0000b@isp.example',
    'alice',
  ])('refuses %j', (text) => {
    expect(tryParseAccountName(text)).toBeUndefined();
  });

  it.each([
    'alice@isp.example/x',
    'alice@isp.example\\00',
    'alice@isp.example?x',
    'alice@isp.example#x',
    'alice@%69sp.example',
    'alice@is\np.example',
  ])('refuses %j, which the reader of URLs would take for alice@isp.example', (text) => {
    expect(tryParseAccountName(text)).toBeUndefined();
  });

  it('takes the default domain when none is given', () => {
    const name = parseAccountName('alice', domainOf(parseAccountName('x@isp.example')));
    expect(name).toBe('alice@isp.example');
  });

  it('folds entryUUIDs and refuses what is none', () => {
    expect(tryParseAccountUuid('0B7C1F9E-0000-4000-8000-00000000000A')).toBe('0b7c1f9e-0000-4000-8000-00000000000a');
    expect(tryParseAccountUuid('../../etc/passwd')).toBeUndefined();
  });
});

describe('hostServer', () => {
  it('is the member name without its first label', () => {
    expect(clusterOf(parseMemberName('back1.west.isp.example'))).toBe('west.isp.example');
  });
});
