/** The implementations of `Network` that must behave alike, by the names that the cases give them. */
import type { Network } from '#common/network/network.ts';
import { nodeNetwork } from '#common/network/node-network.ts';

/** All of them. */
export const networks: Readonly<Record<string, Network>> = { nodeNetwork };
