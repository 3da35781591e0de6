import { createHmac, pbkdf2Sync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { TlsFacts } from '#common/network/network.ts';
import { checkProof, scramKeys } from '#common/passwords/scram-keys.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { mechanismsOf, type SaslSettings } from '#frontend/session/credentials.ts';
import { SaslExchange, type SaslStep } from '#frontend/session/sasl-exchange.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const plain = (text: string): string => Buffer.from(text, 'base64').toString();

const settings: SaslSettings = {
  tokens: { verifier: { accountOf: async () => 'alice@isp.example' }, hints: { scope: 'mail' } },
  scram: { secret: new Secret('site secret'), iterations: 4096 },
};
const binding = Buffer.alloc(32, 7);
const tls13: TlsFacts = { protocol: 'TLSv1.3', cipher: '', serverName: undefined, peerNames: [], channelBinding: () => binding };

function exchange(mechanism: string, more: { tls?: TlsFacts; hasFinalData?: boolean } = {}): SaslExchange {
  return new SaslExchange(mechanism, { settings, tls: more.tls, random: systemRandom, hasFinalData: more.hasFinalData ?? false });
}

const salt = Buffer.from('0123456789abcdef');
const keys = await scramKeys('pencil', salt, 4096);

const clientKey = createHmac('sha256', pbkdf2Sync('pencil', salt, 4096, 32, 'sha256'))
  .update('Client Key')
  .digest();

/** A client of SCRAM: what it sends last, given what the server said. */
function clientFinal(clientFirst: string, header: string, bound: Buffer, server: string): { final: string; signature: string } {
  const nonce = /^r=([^,]*)/.exec(server)?.[1] as string;
  const withoutProof = `c=${Buffer.concat([Buffer.from(header), bound]).toString('base64')},r=${nonce}`;
  const message = `${clientFirst.slice(header.length)},${server},${withoutProof}`;
  const hmac = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
  const signature = hmac(keys.storedKey, message);
  const proof = clientKey.map((byte, at) => byte ^ (signature[at] as number));
  return {
    final: `${withoutProof},p=${Buffer.from(proof).toString('base64')}`,
    signature: hmac(keys.serverKey, message).toString('base64'),
  };
}

function challengeOf(step: SaslStep): string {
  if (step.kind !== 'ask') throw new Error(`a challenge was expected, and ${JSON.stringify(step)} came`);
  return plain(step.challenge);
}

describe('what is offered', () => {
  it('is what can work on the connection', () => {
    expect(mechanismsOf({}, tls13)).toEqual(['PLAIN', 'LOGIN']);
    expect(mechanismsOf(settings, undefined)).toEqual(['PLAIN', 'LOGIN', 'SCRAM-SHA-256', 'OAUTHBEARER', 'XOAUTH2']);
    expect(mechanismsOf(settings, tls13)).toContain('SCRAM-SHA-256-PLUS');
  });
});

describe('a token', () => {
  it('is judged, with the name that the client gave', () => {
    const step = exchange('OAUTHBEARER').begin(base64('n,a=alice@isp.example,\x01host=x\x01auth=Bearer abc\x01\x01'));
    expect(step).toMatchObject({
      kind: 'log-in',
      loginName: 'alice@isp.example',
      credentials: { kind: 'token', mechanism: 'OAUTHBEARER' },
    });
    expect(exchange('XOAUTH2').begin(base64('user=alice\x01auth=Bearer abc\x01\x01'))).toMatchObject({ loginName: 'alice' });
    expect(exchange('OAUTHBEARER').begin(base64('n,,\x01auth=Bearer abc\x01\x01'))).toMatchObject({ loginName: '' });
  });

  it('that is refused is explained, and then refused whatever the client says', () => {
    for (const last of ['AQ==', '', '*', 'x']) {
      const sasl = exchange('OAUTHBEARER');
      expect(sasl.begin(undefined)).toEqual({ kind: 'ask', challenge: '' });
      sasl.answer(base64('n,,\x01auth=Bearer abc\x01\x01'));
      expect(JSON.parse(challengeOf(sasl.failed(new PlatformError('AUTH_FAILED', 'expired'))))).toEqual({
        status: 'invalid_token',
        scope: 'mail',
      });
      expect(sasl.answer(last)).toEqual({ kind: 'over', ok: false });
    }
  });

  it('that cannot be judged now is not called invalid', () => {
    const sasl = exchange('XOAUTH2');
    sasl.begin(base64('user=alice\x01auth=Bearer abc\x01\x01'));
    expect(sasl.failed(new PlatformError('AUTH_TOKEN_UNVERIFIED', 'no keys'))).toEqual({ kind: 'over', ok: false });
  });

  it.each(['OAUTHBEARER', 'XOAUTH2', 'PLAIN', 'SCRAM-SHA-256'])('or other message of %s that is malformed judges nobody', (mechanism) => {
    expect(exchange(mechanism).begin(base64('nonsense'))).toMatchObject({ kind: 'broken', why: 'malformed' });
    expect(exchange(mechanism).begin('not base64!')).toMatchObject({ kind: 'broken', text: 'Not base64' });
    expect(exchange(mechanism).begin('*')).toMatchObject({ kind: 'broken', text: 'Cancelled' });
  });
});

describe('a SCRAM exchange', () => {
  const first = 'n,,n=alice,r=clientnonce';

  it('ends in a proof over what both said, and the server’s own in return', () => {
    const sasl = exchange('SCRAM-SHA-256');
    expect(sasl.begin(base64(first))).toEqual({ kind: 'salt', loginName: 'alice' });
    const server = challengeOf(sasl.salted({ salt: salt.toString('base64'), iterations: 4096 }));
    expect(server).toMatch(/^r=clientnonce[A-Za-z0-9+/]{24},s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096$/);
    const { final, signature } = clientFinal(first, 'n,,', Buffer.alloc(0), server);
    const step = sasl.answer(base64(final));
    if (step.kind !== 'log-in' || step.credentials.kind !== 'scram') throw new Error('a proof was expected');
    expect(step.loginName).toBe('alice');
    expect(checkProof(keys, step.credentials.authMessage, step.credentials.proof.reveal())).toBe(signature);
    expect(challengeOf(sasl.succeeded(signature))).toBe(`v=${signature}`);
    expect(sasl.answer('')).toEqual({ kind: 'over', ok: true });
  });

  it('sends the server’s proof with the success where the protocol can', () => {
    const sasl = exchange('SCRAM-SHA-256', { hasFinalData: true });
    expect(sasl.succeeded('c2ln')).toEqual({ kind: 'over', ok: true, data: base64('v=c2ln') });
  });

  it('is bound to the connection where the client asks for that', () => {
    const header = 'p=tls-exporter,,';
    const begin = (bound: Buffer): SaslStep => {
      const sasl = exchange('SCRAM-SHA-256-PLUS', { tls: tls13 });
      const text = `${header}n=alice,r=clientnonce`;
      expect(sasl.begin(base64(text)).kind).toBe('salt');
      const server = challengeOf(sasl.salted({ salt: salt.toString('base64'), iterations: 4096 }));
      return sasl.answer(base64(clientFinal(text, header, bound, server).final));
    };
    expect(begin(binding).kind).toBe('log-in');
    expect(begin(Buffer.alloc(32, 8))).toMatchObject({ kind: 'broken', text: 'Channel binding does not match' });
  });

  it.each([
    ['that was talked out of the binding', 'SCRAM-SHA-256', 'y,,n=alice,r=c'],
    ['that binds in a mechanism without', 'SCRAM-SHA-256', 'p=tls-exporter,,n=alice,r=c'],
    ['that does not bind in one with', 'SCRAM-SHA-256-PLUS', 'n,,n=alice,r=c'],
    ['that binds in another way', 'SCRAM-SHA-256-PLUS', 'p=tls-unique,,n=alice,r=c'],
    ['that would act for somebody else', 'SCRAM-SHA-256', 'n,a=bob,n=alice,r=c'],
  ])('with a client %s ends before anybody is judged', (_what, mechanism, text) => {
    expect(exchange(mechanism, { tls: tls13 }).begin(base64(text)).kind).toBe('broken');
  });

  it('does not go on with another nonce than its own', () => {
    const sasl = exchange('SCRAM-SHA-256');
    sasl.begin(base64(first));
    const server = challengeOf(sasl.salted({ salt: salt.toString('base64'), iterations: 4096 }));
    const { final } = clientFinal(first, 'n,,', Buffer.alloc(0), server.replace('clientnonce', 'clientnoncf'));
    expect(sasl.answer(base64(final))).toMatchObject({ kind: 'broken' });
  });
});
