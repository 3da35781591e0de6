/**
 * Brings a dialogue to a foreign server: connection, PROXY header, TLS, and the lines back and forth until it is logged in. What the server sent
 * after its last line of the dialogue is kept for whoever takes the connection over.
 *
 * Handlers are two closures per connection and nothing is awaited between lines: logins come by the thousand a second.
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, Network, TlsClientOptions } from '#common/network/network.ts';
import type { ForeignService } from '#directory/client/records.ts';
import type { ForeignDialogue, ForeignStep } from './dialogues/dialogue.ts';

/** Longest line of a server before login, octets. */
const lineBytesMax = 16_384;
/** All that a server may say before it has answered the login, octets. */
const dialogueBytesMax = 262_144;
const nothing: Buffer = Buffer.alloc(0);

/** Where to go, and how. */
export interface ForeignTarget {
  readonly host: string;
  /** Name that its certificate must carry. */
  readonly serverName: string;
  readonly service: ForeignService;
  readonly ca: string | undefined;
  readonly connectTimeoutMs: number;
  readonly loginTimeoutMs: number;
}

/** A connection past its login. `early`: what the server has said since. */
export interface ForeignConnection {
  readonly connection: Connection;
  readonly capabilities: readonly string[];
  readonly early: Buffer;
}

/** Makes the PROXY header for a connection. */
export type Preface = (connection: Connection) => Buffer;

/** Connects. Rejects with `NET_*`. Where TLS comes first, the preface goes before it and has been sent; elsewhere it is to be sent before all else. */
export async function dial(network: Network, clock: Clock, target: ForeignTarget, preface?: Preface): Promise<Connection> {
  const { host, service, serverName, connectTimeoutMs } = target;
  const to = { host, port: service.port, timeoutMs: connectTimeoutMs };
  if (service.tls !== 'implicit') return network.connect(to);
  if (preface === undefined) return network.connect({ ...to, tls: tlsOf(target) });
  const connection = await network.connect(to);
  if (connection.startTlsAsClient === undefined) {
    connection.destroy();
    throw noTls(serverName);
  }
  let isLate = false;
  const timer = clock.after(connectTimeoutMs, () => {
    isLate = true;
    connection.destroy();
  });
  try {
    connection.write(preface(connection));
    await connection.startTlsAsClient(tlsOf(target));
    return connection;
  } catch (error) {
    connection.destroy();
    throw isLate ? new PlatformError('NET_TIMEOUT', `${serverName} did not finish its TLS handshake within ${connectTimeoutMs} ms`) : error;
  } finally {
    timer.cancel();
  }
}

/**
 * Whether a server greets: one that is hung up still has its connections accepted by the system. Resolves at its first octet, with the connection closed
 * again; rejects with `NET_*`.
 *
 * @param preface the PROXY header, where the server waits for one
 */
export async function meet(network: Network, clock: Clock, target: ForeignTarget, preface: Preface | undefined): Promise<void> {
  const connection = await dial(network, clock, target, preface);
  const { serverName, service, loginTimeoutMs } = target;
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = clock.after(loginTimeoutMs, () =>
        reject(new PlatformError('NET_TIMEOUT', `${serverName} accepts connections and greets nobody within ${loginTimeoutMs} ms`)),
      );
      const gone = (error?: Error): void => {
        timer.cancel();
        reject(closed(target, error));
      };
      connection.handle({
        data: () => {
          timer.cancel();
          resolve();
        },
        end: gone,
        close: gone,
      });
      if (preface !== undefined && service.tls !== 'implicit') connection.write(preface(connection));
    });
  } finally {
    connection.destroy();
  }
}

/**
 * Runs a dialogue to its end. Rejects with the dialogue's error, `NET_*` or `FOREIGN_PROTOCOL`; the connection is then gone.
 *
 * @param preface as `dial` was given it
 */
export function converse(
  clock: Clock,
  connection: Connection,
  target: ForeignTarget,
  dialogue: ForeignDialogue,
  preface: Preface | undefined,
): Promise<ForeignConnection> {
  return new Promise((resolve, reject) => {
    let pending = nothing;
    let bytes = 0;
    let isOver = false;
    /** A handshake that fails says why by itself, after the connection has gone. */
    let isSecuring = false;
    const timer = clock.after(target.loginTimeoutMs, () =>
      fail(new PlatformError('NET_TIMEOUT', `${target.serverName} did not finish the login within ${target.loginTimeoutMs} ms`)),
    );
    const fail = (error: PlatformError): void => {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      connection.destroy();
      reject(error);
    };
    const perform = (step: ForeignStep): void => {
      switch (step.kind) {
        case 'read':
          return;
        case 'send':
          connection.write(step.bytes);
          return;
        case 'failed':
          fail(step.error);
          return;
        case 'secure':
          secure();
          return;
        case 'done':
          isOver = true;
          timer.cancel();
          connection.pause();
          resolve({ connection, capabilities: step.capabilities, early: pending });
          pending = nothing;
      }
    };
    const secure = (): void => {
      // Nothing that was said in clear after the server's answer counts (RFC 9051 §6.2.1).
      pending = nothing;
      if (connection.startTlsAsClient === undefined) {
        fail(noTls(target.serverName));
        return;
      }
      isSecuring = true;
      connection.startTlsAsClient(tlsOf(target)).then(
        () => {
          isSecuring = false;
          if (!isOver) connection.write(dialogue.secured());
        },
        (error: PlatformError) => fail(error),
      );
    };
    connection.handle({
      data: (chunk) => {
        bytes += chunk.length;
        if (bytes > dialogueBytesMax) {
          fail(
            new PlatformError(
              'FOREIGN_PROTOCOL',
              `${target.serverName} sent more than ${dialogueBytesMax} octets without answering the login`,
            ),
          );
          return;
        }
        pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
        while (!isOver) {
          const end = pending.indexOf(0x0a);
          if (end < 0) break;
          const text = pending.toString('utf8', 0, end > 0 && pending[end - 1] === 0x0d ? end - 1 : end);
          // The step may hand over what is left, so it is cut off first.
          pending = end + 1 === pending.length ? nothing : pending.subarray(end + 1);
          perform(dialogue.line(text));
        }
        if (!isOver && pending.length > lineBytesMax) {
          fail(new PlatformError('FOREIGN_PROTOCOL', `${target.serverName} sent a line of more than ${lineBytesMax} octets`));
        }
      },
      end: () => {
        if (!isSecuring) fail(closed(target));
      },
      close: (error) => {
        if (!isSecuring) fail(closed(target, error));
      },
    });
    if (preface !== undefined && target.service.tls !== 'implicit') {
      connection.writeAll([preface(connection), Buffer.from(dialogue.opening)]);
    } else if (dialogue.opening !== '') connection.write(dialogue.opening);
  });
}

function tlsOf({ serverName, ca }: ForeignTarget): TlsClientOptions {
  return { serverName, ...(ca === undefined ? {} : { ca }) };
}

function noTls(serverName: string): PlatformError {
  return new PlatformError('NET_TLS_FAILED', `TLS cannot be started on this connection to ${serverName}`);
}

function closed(target: ForeignTarget, cause?: Error): PlatformError {
  return new PlatformError('NET_CLOSED', `${target.serverName} closed the connection before the login was answered`, { cause });
}
