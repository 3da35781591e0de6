/** The implementations of `Network` that must behave alike, by the names that the cases give them, and where one of them falls short. */
import { createDirectNetwork } from '#common/network/direct/direct-network.ts';
import { boundAnew } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';
import { createNodeNetwork } from '#common/network/node-network.ts';

const directNetwork = createDirectNetwork(boundAnew);
if (directNetwork === undefined) throw new Error('system calls cannot be made in this process: is koffi installed for this platform?');

/** All of them; every pair is tried as well. */
export const networks: Readonly<Record<string, Network>> = { nodeNetwork: createNodeNetwork(boundAnew), directNetwork };

/** What an implementation is known not to do; the cases ask it of the others. */
export type Gap =
  /** A client that ends in the middle of `startTls` is noticed when the time for the handshake is over, not at once. */
  | 'end in a handshake'
  /** `startTls` on a connection that is closed already fails when the time for the handshake is over, not at once. */
  | 'handshake after close'
  /** After `startTls`, what is no TLS any more closes the connection without an error. */
  | 'error of a broken session'
  /** What is read is given to `data`, never lent. */
  | 'lending';

/** By the name of the implementation. */
export const gaps: Readonly<Record<string, readonly Gap[]>> = {
  nodeNetwork: ['end in a handshake', 'handshake after close', 'error of a broken session', 'lending'],
};
