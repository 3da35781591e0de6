/**
 * The other processes of the installation. All are asked at once, each has the same short time, and one that is silent is named in the
 * answer instead of being left out of it.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { requestJson } from '#common/http/client.ts';
import { requestStream, type StreamAnswer } from '#common/http/stream-client.ts';
import type { AdminOptions, AdminPeerAddress } from './options.ts';
import type { NodeReply, Replies } from './reports.ts';

/** Time that a peer has to answer. */
export const peerTimeoutMs = 3_000;
/** Time that an action may take, e.g. the comparison of a whole replica. */
const actionTimeoutMs = 600_000;
/** Longest silence of a stream; whoever works says every second how far it is. */
const streamSilenceMs = 60_000;

/** Answers of this process and its peers to one question; this process comes first. */
export interface Gathered<T> {
  readonly replies: Replies;
  readonly answers: readonly T[];
}

/**
 * Asks every peer for `path`, and puts `own` before their answers.
 *
 * @param path below the peer's URL, e.g. `/api/v1/node`
 */
export async function gather<T>(options: AdminOptions, ownUrl: string, path: string, own: T): Promise<Gathered<T>> {
  const { clock } = options.ports;
  const asked = await Promise.all(
    // The same list of peers may stand in every node file: a process does not ask itself.
    options.peers
      .filter((peer) => peer.name !== options.node && peer.url.replace(/\/$/, '') !== ownUrl)
      .map(async (peer) => {
        const startedAtMs = clock.monotonicMs();
        const reply = (ok: boolean, error: string | undefined): NodeReply => ({
          node: peer.name,
          url: peer.url,
          ok,
          error,
          tookMs: Math.round(clock.monotonicMs() - startedAtMs),
        });
        try {
          const answer = await requestJson(clock, { ...peerRequest(options, peer, path), timeoutMs: peerTimeoutMs });
          return { reply: reply(true, undefined), answer: answer.body as T };
        } catch (error) {
          return { reply: reply(false, messageOf(error)), answer: undefined };
        }
      }),
  );
  const nodes: NodeReply[] = [
    { node: options.node, url: ownUrl, ok: true, error: undefined, tookMs: 0 },
    ...asked.map(({ reply }) => reply),
  ];
  return {
    replies: { asked: nodes.length, replied: nodes.filter((node) => node.ok).length, nodes },
    answers: [own, ...asked.flatMap(({ reply, answer }) => (reply.ok ? [answer as T] : []))],
  };
}

/** The request that every peer understands: the token is the installation's. */
export function peerRequest(
  options: Pick<AdminOptions, 'token'>,
  peer: AdminPeerAddress,
  path: string,
): { url: string; token: AdminOptions['token']; ca: string | undefined } {
  return { url: `${peer.url.replace(/\/$/, '')}${path}`, token: options.token, ca: peer.ca };
}

/** What only one process has, as messages call it, and what to do where the one that has it may be one that is silent. */
export interface Sought {
  readonly what: string;
  readonly hintIfSilent?: string;
}

/** Asks one peer after the other to do something to what only one of them has; rejects with `ADMIN_NOT_FOUND` when none has it. */
export function askPeersInTurn(options: AdminOptions, path: string, sought: Sought, body?: unknown): Promise<unknown> {
  const { clock } = options.ports;
  return inTurn(options, sought, async (peer) => {
    return (await requestJson(clock, { ...peerRequest(options, peer, path), method: 'POST', body, timeoutMs: actionTimeoutMs })).body;
  });
}

/** The same where the answer is a stream of that media type. */
export function askPeersForStream(
  options: AdminOptions,
  path: string,
  sought: Sought,
  body: object,
  accept: string,
): Promise<StreamAnswer> {
  return inTurn(options, sought, (peer) =>
    requestStream(options.ports.clock, {
      ...peerRequest(options, peer, path),
      method: 'POST',
      contentType: 'application/json',
      accept,
      body: bytesOf(JSON.stringify(body)),
      silenceMs: streamSilenceMs,
    }),
  );
}

async function* bytesOf(text: string): AsyncGenerator<Buffer> {
  yield Buffer.from(text);
}

async function inTurn<T>(options: AdminOptions, { what, hintIfSilent }: Sought, ask: (peer: AdminPeerAddress) => Promise<T>): Promise<T> {
  const silent: string[] = [];
  for (const peer of options.peers) {
    try {
      return await ask(peer);
    } catch (error) {
      const known = error instanceof PlatformError ? error : undefined;
      // A peer that answers may say itself that something did not answer: that is its answer, and has a status.
      if (known?.code.startsWith('NET_') && known.fields.status === undefined) silent.push(peer.name);
      else if (known?.code !== 'ADMIN_NOT_FOUND') throw error;
    }
  }
  // Whoever is silent may be the one who has it: only with all answers in does it not exist.
  if (silent.length > 0)
    throw new PlatformError('NET_TIMEOUT', `no node that answered has a ${what}; silent: ${silent.join(', ')}`, {
      fields: { hint: hintIfSilent ?? 'start what is silent, or see `archipelago status` for what is known' },
    });
  throw new PlatformError('ADMIN_NOT_FOUND', `no node has a ${what}`, { fields: { hint: 'archipelago status' } });
}
