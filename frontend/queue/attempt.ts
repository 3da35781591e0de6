/**
 * One attempt to deliver one message: every recipient that is still open is asked for anew, put together by where it lives now, and handed
 * over. A rename or a move between RCPT and now is followed because the account is asked for by UUID.
 */

import { type AccountName, tryParseAccountName } from '#common/account-name.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { MailRoute, MailRouter } from '../listeners/smtp-contract.ts';
import type { ClusterLane } from './cluster-lane.ts';
import type { Envelope, QueuedRecipient } from './envelope.ts';
import type { RecipientResult } from './lmtp-client.ts';
import type { RelayTransport } from './relay.ts';
import type { Slots } from './slots.ts';

/** What an attempt works with. */
export interface AttemptOptions {
  readonly router: MailRouter;
  lane(cluster: ClusterName): ClusterLane;
  readonly relay: RelayTransport | undefined;
  /** Look-ups at a time, over all messages. */
  readonly lookups: Slots;
  readRaw(): Promise<Buffer>;
}

/** Results by index of the recipient, and the clusters that could not be reached. */
export interface AttemptOutcome {
  readonly results: ReadonlyMap<number, RecipientResult>;
  readonly unreachable: readonly ClusterName[];
}

/** Tries the recipients of these indexes. Never rejects. */
export async function attemptDelivery(envelope: Envelope, open: readonly number[], options: AttemptOptions): Promise<AttemptOutcome> {
  const results = new Map<number, RecipientResult>();
  const byCluster = new Map<ClusterName, Map<AccountName, number[]>>();
  const foreign: number[] = [];
  await Promise.all(
    open.map(async (index) => {
      const recipient = envelope.recipients[index] as QueuedRecipient;
      const route = await options.lookups.run(() => routeOf(recipient, options.router));
      if (route.kind === 'local') {
        const names = byCluster.get(route.cluster) ?? new Map<AccountName, number[]>();
        byCluster.set(route.cluster, names);
        // Two addresses of one account are one recipient for the member.
        names.set(route.name, [...(names.get(route.name) ?? []), index]);
      } else if (route.kind === 'foreign-domain') {
        foreign.push(index);
      } else if (route.kind === 'unknown') {
        results.set(index, { kind: 'permanent', status: '5.1.1', text: 'There is no such account' });
      } else {
        results.set(index, { kind: 'temporary', status: '4.4.3', text: 'The account could not be looked up' });
      }
    }),
  );
  const unreachable: ClusterName[] = [];
  const work = [...byCluster].map(async ([cluster, names]) => {
    const lane = options.lane(cluster);
    const outcomes = await lane.deliver({
      sender: envelope.sender,
      deliveryId: envelope.id,
      recipients: [...names.keys()],
      readRaw: options.readRaw,
    });
    [...names.values()].forEach((indexes, i) => {
      for (const index of indexes) results.set(index, outcomes[i] as RecipientResult);
    });
    if (lane.isResting && outcomes.every((outcome) => outcome.kind === 'temporary')) unreachable.push(cluster);
  });
  if (foreign.length > 0) work.push(sendAbroad(envelope, foreign, options, results));
  await Promise.all(work);
  return { results, unreachable };
}

/** By UUID first. An account that is gone leaves its address, which may belong to another by now. */
async function routeOf(recipient: QueuedRecipient, router: MailRouter): Promise<MailRoute> {
  if (recipient.uuid !== undefined) {
    const route = await router.resolveUuid(recipient.uuid);
    if (route.kind !== 'unknown') return route;
  }
  const name = tryParseAccountName(recipient.address);
  return name === undefined ? { kind: 'foreign-domain' } : await router.resolve(name);
}

async function sendAbroad(
  envelope: Envelope,
  indexes: readonly number[],
  options: AttemptOptions,
  results: Map<number, RecipientResult>,
): Promise<void> {
  if (options.relay === undefined) {
    for (const index of indexes)
      results.set(index, { kind: 'permanent', status: '5.7.1', text: 'This server sends no mail to other domains' });
    return;
  }
  const recipients = indexes.map((index) => (envelope.recipients[index] as QueuedRecipient).address);
  let raw: Buffer;
  try {
    raw = await options.readRaw();
  } catch (thrown) {
    for (const index of indexes) results.set(index, { kind: 'temporary', status: '4.3.0', text: messageOf(thrown) });
    return;
  }
  const outcomes = await options.relay.send({ sender: envelope.sender, recipients, raw });
  indexes.forEach((index, i) => {
    results.set(index, outcomes[i] as RecipientResult);
  });
}
