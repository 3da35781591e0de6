import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { OAuthOptions } from '#common/config/options.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { HttpAnswer, HttpExchange, HttpRequest } from '#common/http/exchange.ts';
import { silentLogger } from '#common/log/logger.ts';
import { rereadMs } from '#common/oauth/key-set.ts';
import { type TokenVerifier, tokenVerifier } from '#common/oauth/token-verifier.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ed = generateKeyPairSync('ed25519');
const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = (key: KeyObject, more: object): object => ({ ...key.export({ format: 'jwk' }), use: 'sig', ...more });

const options: OAuthOptions = {
  issuer: 'https://login.isp.example',
  audience: 'mail',
  jwksUrl: 'https://login.isp.example/keys',
  claim: 'email',
  clockSkewSeconds: 30,
  timeoutMs: 5000,
};

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

function signed(claims: object, header: { alg: string; kid?: string; [more: string]: unknown }, key: KeyObject): Secret<string> {
  const text = `${part(header)}.${part(claims)}`;
  const signature =
    header.alg === 'HS256'
      ? createHmac('sha256', key.export({ type: 'spki', format: 'pem' }))
          .update(text)
          .digest()
      : sign(header.alg === 'EdDSA' ? null : 'sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });
  return new Secret(`${text}.${signature.toString('base64url')}`);
}

/** An issuer whose answers the test decides. */
function issuer(more: Partial<OAuthOptions> = {}) {
  const clock = new FakeClock();
  const seconds = clock.nowMs() / 1000;
  const claims = { iss: options.issuer, aud: ['web', 'mail'], exp: seconds + 3600, email: 'alice@isp.example', scope: 'mail profile' };
  const state = {
    keys: [jwk(rsa.publicKey, { kid: 'r1', alg: 'RS256' }), jwk(ec.publicKey, { kid: 'e1' }), jwk(ed.publicKey, { kid: 'd1' })],
  };
  const requests: HttpRequest[] = [];
  const answers: { next: (request: HttpRequest) => Pick<HttpAnswer, 'status'> & { body: unknown } } = {
    next: () => ({ status: 200, body: { keys: state.keys } }),
  };
  const http: HttpExchange = {
    async request(request) {
      requests.push(request);
      const { status, body } = answers.next(request);
      return { status, headers: {}, body: Buffer.from(JSON.stringify(body)) };
    },
    async [Symbol.asyncDispose]() {},
  };
  const ports = { clock, random: systemRandom, files: nodeFiles, log: silentLogger, http };
  const verifier = tokenVerifier({ ...options, ...more }, ports, new Secret('s:cret'));
  return { clock, claims, state, requests, answers, verifier };
}

async function said(verifier: TokenVerifier, token: Secret<string>): Promise<string> {
  return verifier.accountOf(token).catch((error: PlatformError) => error.code);
}

describe('a token that proves itself', () => {
  it.each([
    ['RS256', 'r1', rsa.privateKey],
    ['ES256', 'e1', ec.privateKey],
    ['EdDSA', 'd1', ed.privateKey],
  ] as const)('is taken when the issuer signed it by %s', async (alg, kid, key) => {
    const { verifier, claims, requests } = issuer();
    expect(await said(verifier, signed(claims, { alg, kid }, key))).toBe('alice@isp.example');
    expect(await said(verifier, signed(claims, { alg, kid }, key))).toBe('alice@isp.example');
    expect(requests.map(({ origin, target }) => `${origin}${target}`)).toEqual(['https://login.isp.example/keys']);
  });

  it.each([
    ['another issuer', { iss: 'https://evil.example' }],
    ['another audience', { aud: 'web' }],
    ['an end in the past', { exp: 1 }],
    ['no end', { exp: undefined }],
    ['a start to come', { nbf: 99_999_999_999 }],
    ['no account', { email: undefined }],
    ['an account that is no text', { email: ['alice@isp.example'] }],
  ])('is refused with %s', async (_what, more) => {
    const { verifier, claims } = issuer();
    expect(await said(verifier, signed({ ...claims, ...more }, { alg: 'RS256', kid: 'r1' }, rsa.privateKey))).toBe('AUTH_FAILED');
  });

  it('is refused when it is signed by nobody, by a stranger, or with the public key for a secret', async () => {
    const { verifier, claims } = issuer();
    const unsigned = new Secret(`${part({ alg: 'none' })}.${part(claims)}.AA`);
    expect(await said(verifier, unsigned)).toBe('AUTH_FAILED');
    expect(await said(verifier, signed(claims, { alg: 'RS256', kid: 'r1' }, stranger.privateKey))).toBe('AUTH_FAILED');
    expect(await said(verifier, signed(claims, { alg: 'HS256', kid: 'r1' }, rsa.publicKey))).toBe('AUTH_FAILED');
    expect(await said(verifier, signed(claims, { alg: 'RS256', kid: 'r1', crit: ['exp'] }, rsa.privateKey))).toBe('AUTH_FAILED');
    // A key that is there for RS256 signs by no other algorithm, and a key of one kind not for another.
    expect(await said(verifier, signed(claims, { alg: 'RS256', kid: 'e1' }, rsa.privateKey))).toBe('AUTH_FAILED');
    for (const nonsense of ['', 'x', 'a.b.c', '..', `${part([])}.${part(claims)}.AA`, 'x'.repeat(10_000)]) {
      expect(await said(verifier, new Secret(nonsense))).toBe('AUTH_FAILED');
    }
  });

  it('needs the scope that is asked for, and gets the domain that is set', async () => {
    const { verifier, claims } = issuer({ scope: 'mail', claim: 'sub', domain: 'isp.example' });
    const header = { alg: 'RS256', kid: 'r1' };
    expect(await said(verifier, signed({ ...claims, sub: 'alice' }, header, rsa.privateKey))).toBe('alice@isp.example');
    expect(await said(verifier, signed({ ...claims, sub: 'alice', scope: 'email' }, header, rsa.privateKey))).toBe('AUTH_FAILED');
  });

  it('is not judged while the keys cannot be read, and is once they can', async () => {
    const { verifier, claims, answers, clock, state } = issuer();
    const good = signed(claims, { alg: 'RS256', kid: 'r1' }, rsa.privateKey);
    const works = answers.next;
    answers.next = () => ({ status: 503, body: '' });
    expect(await said(verifier, good)).toBe('AUTH_TOKEN_UNVERIFIED');
    answers.next = () => ({ status: 200, body: { no: 'keys' } });
    await clock.advance(rereadMs);
    expect(await said(verifier, good)).toBe('AUTH_TOKEN_UNVERIFIED');
    answers.next = works;
    await clock.advance(rereadMs);
    expect(await said(verifier, good)).toBe('alice@isp.example');
    // From now on the keys are known: the server may go, and a key that is not known may be new.
    answers.next = () => {
      throw new PlatformError('NET_CONNECT_FAILED', 'the issuer is down');
    };
    await clock.advance(3_000_000);
    expect(await said(verifier, good)).toBe('alice@isp.example');
    expect(await said(verifier, signed(claims, { alg: 'RS256', kid: 'r2' }, stranger.privateKey))).toBe('AUTH_TOKEN_UNVERIFIED');
    state.keys = [jwk(stranger.publicKey, { kid: 'r2' })];
    answers.next = works;
    await clock.advance(rereadMs);
    expect(await said(verifier, signed(claims, { alg: 'RS256', kid: 'r2' }, stranger.privateKey))).toBe('alice@isp.example');
    expect(await said(verifier, good)).toBe('AUTH_FAILED');
  });

  it('does not make the issuer be asked again for every name of a key', async () => {
    const { verifier, claims, requests } = issuer();
    for (let i = 0; i < 20; i += 1) {
      expect(await said(verifier, signed(claims, { alg: 'RS256', kid: `k${i}` }, stranger.privateKey))).toBe('AUTH_FAILED');
    }
    expect(requests).toHaveLength(1);
  });
});

describe('a token that its issuer is asked about', () => {
  const asked = { jwksUrl: undefined, introspectionUrl: 'https://login.isp.example/introspect', clientId: 'mail farm' } as never;

  it('is taken while it is active, and asked about once a minute', async () => {
    const { verifier, answers, requests, clock } = issuer(asked);
    answers.next = () => ({ status: 200, body: { active: true, email: 'alice@isp.example' } });
    expect(await said(verifier, new Secret('opaque'))).toBe('alice@isp.example');
    expect(await said(verifier, new Secret('opaque'))).toBe('alice@isp.example');
    expect(requests).toHaveLength(1);
    expect(requests[0]).toMatchObject({ method: 'POST', target: '/introspect' });
    expect(Buffer.from(requests[0]?.headers.authorization?.slice(6) ?? '', 'base64').toString()).toBe('mail%20farm:s%3Acret');
    expect(Buffer.concat([...(requests[0]?.body ?? [])]).toString()).toBe('token=opaque&token_type_hint=access_token');
    await clock.advance(61_000);
    answers.next = () => ({ status: 200, body: { active: false } });
    expect(await said(verifier, new Secret('opaque'))).toBe('AUTH_FAILED');
  });

  it.each([
    ['fails', { status: 500, body: '' }],
    ['does not know us', { status: 401, body: { error: 'invalid_client' } }],
    ['talks nonsense', { status: 200, body: 'hello' }],
  ])('is not judged when the issuer’s server %s', async (_what, answer) => {
    const { verifier, answers } = issuer(asked);
    answers.next = () => answer;
    expect(await said(verifier, new Secret('opaque'))).toBe('AUTH_TOKEN_UNVERIFIED');
  });

  it('is refused when what the server says of it does not fit', async () => {
    const { verifier, answers } = issuer(asked);
    for (const more of [{ aud: 'web' }, { iss: 'https://evil.example' }, { exp: 1 }]) {
      answers.next = () => ({ status: 200, body: { active: true, email: 'alice@isp.example', ...more } });
      expect(await said(verifier, new Secret(JSON.stringify(more)))).toBe('AUTH_FAILED');
    }
  });
});
