import { describe, expect, it } from 'vitest';
import { verifyStored } from '#common/passwords/schemes.ts';
import { checkProof, formatScramKeys, parseScramKeys, scramKeys } from '#common/passwords/scram-keys.ts';
import { bearerMessage, bearerRefusal, parseOauthBearer, parseXoauth2 } from '#protocol/sasl/bearer.ts';
import { authMessage, parseClientFinal, parseClientFirst, serverFirst } from '#protocol/sasl/scram.ts';

const text = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8');

describe('OAUTHBEARER', () => {
  it('reads the example of RFC 7628 §4.1', () => {
    const message = text(
      'bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB',
    );
    expect(parseOauthBearer(message)).toEqual({ name: 'user@example.com', token: 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==' });
  });

  it.each([
    ['no name', 'n,,\x01auth=Bearer abc\x01\x01', { name: '', token: 'abc' }],
    ['an escaped name', 'n,a=a=2Cb=3Dc,\x01auth=bearer  abc\x01\x01', { name: 'a,b=c', token: 'abc' }],
    ['a channel binding, which it has none of', 'p=tls-exporter,,\x01auth=Bearer abc\x01\x01', undefined],
    ['two tokens', 'n,,\x01auth=Bearer abc\x01auth=Bearer def\x01\x01', undefined],
    ['no token', 'n,,\x01\x01', undefined],
    ['another scheme', 'n,,\x01auth=Basic abc\x01\x01', undefined],
    ['a missing end', 'n,,\x01auth=Bearer abc\x01', undefined],
    ['a token with a blank', 'n,,\x01auth=Bearer a b\x01\x01', undefined],
    ['nothing', '', undefined],
  ])('reads a message with %s as such', (_what, message, expected) => {
    expect(parseOauthBearer(message)).toEqual(expected);
  });

  it('writes what it reads, and says why a token is refused', () => {
    const message = { name: 'a,b=c@isp.example', token: 'abc.def' };
    expect(parseOauthBearer(bearerMessage('OAUTHBEARER', message))).toEqual(message);
    expect(JSON.parse(bearerRefusal('OAUTHBEARER', { scope: 'mail', configuration: 'https://login.isp.example/' }))).toEqual({
      status: 'invalid_token',
      scope: 'mail',
      'openid-configuration': 'https://login.isp.example/',
    });
  });
});

describe('XOAUTH2', () => {
  it('reads what clients send', () => {
    const message = { name: 'alice@isp.example', token: 'abc.def' };
    expect(parseXoauth2('user=alice@isp.example\x01auth=Bearer abc.def\x01\x01')).toEqual(message);
    expect(parseXoauth2(bearerMessage('XOAUTH2', message))).toEqual(message);
    expect(parseXoauth2('user=alice@isp.example\x01\x01')).toBeUndefined();
    expect(JSON.parse(bearerRefusal('XOAUTH2', {}))).toEqual({ status: '401', schemes: 'bearer' });
  });
});

describe('SCRAM-SHA-256', () => {
  const salt = 'W22ZaJ0SNY7soEsUEjb6gQ==';

  it('goes through the exchange of RFC 7677 §3', async () => {
    const first = parseClientFirst('n,,n=user,r=rOprNGfwEbeRWgbNEkqO');
    expect(first).toMatchObject({ binding: 'n', name: 'user', authorizationId: '', gs2Header: 'n,,' });
    const server = serverFirst(first?.nonce as string, '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0', salt, 4096);
    expect(server).toBe(`r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=${salt},i=4096`);
    const final = parseClientFinal(
      'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
    );
    expect(final?.channelBinding.toString()).toBe('n,,');
    const keys = await scramKeys('pencil', Buffer.from(salt, 'base64'), 4096);
    const message = authMessage(first?.bare as string, server, final?.withoutProof as string);
    expect(checkProof(keys, message, final?.proof as string)).toBe('6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
    expect(checkProof(keys, `${message}x`, final?.proof as string)).toBeUndefined();
    expect(checkProof(keys, message, 'AAAA')).toBeUndefined();
  });

  it('writes keys as RFC 5803 has them, reads them also as Dovecot does, and verifies a password by them', async () => {
    const keys = await scramKeys('pencil', Buffer.from(salt, 'base64'), 4096);
    const written = formatScramKeys(keys);
    expect(written).toMatch(/^4096:W22ZaJ0SNY7soEsUEjb6gQ==\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}$/);
    expect(parseScramKeys(written)).toEqual(keys);
    expect(parseScramKeys(written.replace(/[:$]/g, ','))).toEqual(keys);
    expect(await verifyStored(`{SCRAM-SHA-256}${written}`, Buffer.from('pencil'))).toBe(true);
    expect(await verifyStored(`{SCRAM-SHA-256}${written}`, Buffer.from('pencils'))).toBe(false);
  });

  it.each(['', '4096', '4096:AAAA$AAAA:AAAA', '0:AAAA$x:y', '99999999:AAAA$AAAA:AAAA'])('takes no keys from "%s"', (written) => {
    expect(parseScramKeys(written)).toBeUndefined();
  });

  it('takes a password for the same however its letters are composed', async () => {
    const [one, other] = await Promise.all(
      ['p\u00e5ss\u00a0word', 'pa\u030ass word'].map((word) => scramKeys(word, Buffer.from('salt'), 4096)),
    );
    expect(one?.storedKey).toEqual(other?.storedKey);
  });

  it.each(['n,,n=user', 'x,,n=user,r=abc', 'n,,m=ext,n=user,r=abc', 'n,,n=us=er,r=abc', 'n,,n=,r=abc', 'p=,,n=user,r=abc', ''])(
    'does not take "%s" for a first message',
    (message) => {
      expect(parseClientFirst(message)).toBeUndefined();
    },
  );

  it('reads the binding and the authorization identity', () => {
    expect(parseClientFirst('p=tls-exporter,a=bob,n=a=2Cl,r=abc,x=ext')).toMatchObject({
      binding: { name: 'tls-exporter' },
      authorizationId: 'bob',
      name: 'a,l',
      bare: 'n=a=2Cl,r=abc,x=ext',
    });
  });
});
