/** An LDAP server of a few lines that a test scripts: what it is asked is recorded, what it answers is given by the test. */

import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, ConnectOptions, Network } from '#common/network/network.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { Control, LdapMessage, LdapOperation, LdapResponse } from '#protocol/ldap/messages.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';

/** One connection's server end. */
export class ScriptedConnection {
  readonly connection: MemoryConnection;
  readonly requests: LdapMessage[] = [];

  constructor(connection: MemoryConnection, answer: (message: LdapMessage, server: ScriptedConnection) => void) {
    this.connection = connection;
    const decoder = new LdapDecoder({ messageBytesMax: 1_000_000 });
    connection.handle({
      data: (chunk) => {
        decoder.push(chunk);
        for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) {
          this.requests.push(next.message);
          answer(next.message, this);
        }
      },
      close: () => {},
    });
  }

  send(id: number, operation: LdapResponse, controls: readonly Control[] = []): void {
    this.connection.write(encodeMessage({ id, operation, controls }));
  }

  /** The last request of that type. */
  last(type: LdapOperation['type']): LdapMessage {
    const found = this.requests.findLast((one) => one.operation.type === type);
    if (found === undefined) throw new Error(`no ${type} came; there were ${this.requests.map((one) => one.operation.type).join(', ')}`);
    return found;
  }
}

/** A network on which each URL's port leads to a scripted server; ports not listed refuse. */
export function scriptedNetwork(servers: Record<number, (message: LdapMessage, server: ScriptedConnection) => void>): {
  readonly network: Network;
  readonly connections: Map<number, ScriptedConnection[]>;
} {
  const connections = new Map<number, ScriptedConnection[]>();
  const network: Network = {
    connect(options: ConnectOptions): Promise<Connection> {
      const answer = servers[options.port ?? 0];
      if (answer === undefined) return Promise.reject(new PlatformError('NET_CONNECT_FAILED', `port ${options.port} refuses`));
      const [client, server] = connectionPair();
      connections.set(options.port ?? 0, [...(connections.get(options.port ?? 0) ?? []), new ScriptedConnection(server, answer)]);
      return Promise.resolve(client);
    },
    listen: () => Promise.reject(new Error('nothing listens here')),
  };
  return { network, connections };
}

export const success = { resultCode: 0, matchedDn: '', diagnosticMessage: '' };
