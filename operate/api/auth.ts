/**
 * Who may use the admin API: whoever has the token. Programs send it as a bearer token (RFC 6750 §2.1); the console trades it once for a
 * session cookie. What always holds:
 * - tokens are compared in constant time, by digest, so that neither content nor length leaks;
 * - a wrong one is answered late, ever later for the same client address; a right one is never slowed, so nobody can be locked out;
 * - a request that changes something and comes with the cookie must carry a header that a foreign page cannot send (CSRF), on top of
 *   SameSite=Strict.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { type Clock, sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { HttpReply, HttpRequest, HttpServer } from '#common/http/server.ts';
import type { Random } from '#common/random.ts';
import type { Secret } from '#common/secret.ts';

/** Limits of authentication. */
export const authLimits = {
  /** First delay of a refusal; doubles with each failure of the same address. */
  delayMs: 100,
  delayMsMax: 3_000,
  /** Refusals that may wait at a time; beyond, the answer is 429 at once. */
  waitingMax: 50,
  /** Addresses remembered; the oldest is forgotten. */
  addressesMax: 10_000,
  /** A failure is forgotten after so long. */
  forgetAfterMs: 600_000,
  /** Console sessions at a time; the oldest is ended. */
  sessionsMax: 1_000,
  sessionMs: 43_200_000,
} as const;

const cookieName = 'archipelago_session';
/** Header that the console sends with every change; its presence is what counts. */
export const consoleHeader = 'x-archipelago-console';

interface AuthOptions {
  readonly token: Secret<string>;
  readonly isTls: boolean;
  readonly clock: Clock;
  readonly random: Random;
}

/** Guards all routes below `/api/` but the login, and adds login and logout. */
export function addAuth(server: HttpServer, options: AuthOptions): void {
  const { clock } = options;
  const expected = digest(options.token.reveal());
  const sessions = new Map<string, number>();
  const failures = new Map<string, { count: number; atMs: number }>();
  let waiting = 0;

  const refuse = async (address: string, message: string): Promise<never> => {
    const before = failures.get(address);
    const nowMs = clock.monotonicMs();
    const count = before === undefined || nowMs - before.atMs > authLimits.forgetAfterMs ? 1 : before.count + 1;
    failures.delete(address);
    failures.set(address, { count, atMs: nowMs });
    if (failures.size > authLimits.addressesMax) failures.delete(failures.keys().next().value as string);
    if (waiting >= authLimits.waitingMax)
      throw new PlatformError('LIMIT_LOGINS', 'too many refused logins at this moment; try again later');
    waiting += 1;
    try {
      await sleep(clock, Math.min(authLimits.delayMsMax, authLimits.delayMs * 2 ** (count - 1)));
    } finally {
      waiting -= 1;
    }
    throw unauthorized(message);
  };

  const sessionOf = (request: HttpRequest): string | undefined => {
    const cookie = readCookie(request.headers.cookie, cookieName);
    if (cookie === undefined) return undefined;
    const key = digest(cookie).toString('hex');
    const untilMs = sessions.get(key);
    if (untilMs === undefined) return undefined;
    if (untilMs > clock.monotonicMs()) return key;
    sessions.delete(key);
    return undefined;
  };

  server.addHook('onRequest', async (request) => {
    // The route that was found decides, never the text of the URL: /%61pi and http://x/api lead to the same routes. What leads nowhere
    // below /api/ is guarded as well, so that nobody can ask which routes there are.
    const path = request.routeOptions.url ?? request.url;
    if (!path.startsWith('/api/') || path === '/api/v1/login') return;
    const authorization = request.headers.authorization;
    if (authorization !== undefined) {
      const token = /^Bearer +(\S{1,1024})$/i.exec(authorization)?.[1];
      if (token !== undefined && timingSafeEqual(digest(token), expected)) return;
      await refuse(request.ip, token === undefined ? 'the Authorization header is not "Bearer TOKEN"' : 'the token is not the right one');
    }
    // Nothing was guessed here, so nothing is slowed: a page without a session asks once and shows its login.
    if (sessionOf(request) === undefined) throw unauthorized('no token was sent and no console session is open');
    if (request.method !== 'GET' && request.method !== 'HEAD') requireOwnPage(request);
  });

  server.post<{ Body: unknown }>('/api/v1/login', async (request, reply) => {
    requireOwnPage(request);
    const password = (request.body as { password?: unknown } | null)?.password;
    if (typeof password !== 'string') throw new PlatformError('ADMIN_BAD_REQUEST', 'expected a JSON object with the text "password"');
    if (!timingSafeEqual(digest(password), expected)) await refuse(request.ip, 'the password is not the right one');
    const id = options.random.bytes(32).toString('base64url');
    sessions.set(digest(id).toString('hex'), clock.monotonicMs() + authLimits.sessionMs);
    if (sessions.size > authLimits.sessionsMax) sessions.delete(sessions.keys().next().value as string);
    setCookie(reply, id, authLimits.sessionMs / 1000, options.isTls);
    return reply.code(204).send();
  });

  server.post('/api/v1/logout', (request, reply) => {
    const session = sessionOf(request);
    if (session !== undefined) sessions.delete(session);
    setCookie(reply, '', 0, options.isTls);
    return reply.code(204).send();
  });
}

function unauthorized(message: string): PlatformError {
  return new PlatformError('ADMIN_UNAUTHORIZED', message, {
    fields: { hint: 'send "Authorization: Bearer TOKEN"; the token is the first line of the node file’s admin.tokenFile' },
  });
}

/** A page of another origin can neither add this header without a preflight, which nobody here answers, nor hide its Origin. */
function requireOwnPage(request: HttpRequest): void {
  const origin = request.headers.origin;
  const isForeign = origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== request.headers.host);
  if (request.headers[consoleHeader] === undefined || isForeign) {
    throw new PlatformError(
      'ADMIN_FORBIDDEN',
      `a change with the console’s cookie needs the header ${consoleHeader} and this server’s own Origin`,
    );
  }
}

function setCookie(reply: HttpReply, value: string, maxAgeSeconds: number, isTls: boolean): void {
  reply.header(
    'set-cookie',
    `${cookieName}=${value}; Path=/; Max-Age=${maxAgeSeconds}; HttpOnly; SameSite=Strict${isTls ? '; Secure' : ''}`,
  );
}

function readCookie(header: string | undefined, name: string): string | undefined {
  for (const part of (header ?? '').split(';')) {
    const [key, value] = part.trim().split('=', 2);
    if (key === name && value !== undefined && value !== '') return value;
  }
  return undefined;
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
