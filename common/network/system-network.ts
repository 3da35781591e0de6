/** The network of this machine: by system calls of our own where this process can make them (direct/), by Node's sockets otherwise. */
import type { AcceptTrouble } from './direct/accept-trouble.ts';
import { createDirectNetwork, DirectNetwork } from './direct/direct-network.ts';
import { boundAnew, type SocketSource } from './listening-sockets.ts';
import type { Network } from './network.ts';
import { createNodeNetwork } from './node-network.ts';

/**
 * The network, with listeners' sockets from this source.
 *
 * @param wanted `node` for Node's sockets, as an operator may ask; anything else takes what is there
 * @param trouble told when connections cannot be accepted; Node does not say so of its own sockets
 */
export function createSystemNetwork(sockets: SocketSource, wanted?: string, trouble?: AcceptTrouble): Network {
  return (wanted === 'node' ? undefined : createDirectNetwork(sockets, trouble)) ?? createNodeNetwork(sockets);
}

/** Whose sockets a network has, for the log. */
export function kindOf(network: Network): 'direct' | 'node' {
  return network instanceof DirectNetwork ? 'direct' : 'node';
}

/** The network of processes that take no sockets over and pass none on. */
export const systemNetwork: Network = createSystemNetwork(boundAnew);
