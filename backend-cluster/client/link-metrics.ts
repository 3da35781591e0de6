/** What a server's link to members shows of itself as metrics, looked up whenever they are collected. */
import type { LinkCache } from '#backend-cluster/client/link-cache.ts';
import type { LinkUse } from '#backend-cluster/client/status.ts';
import type { Metrics } from '#common/metrics/metrics.ts';

/** A member, as the link knows it. */
interface ShownPeer {
  readonly member: { readonly name: string };
  caches(): Iterable<Pick<LinkCache, 'name' | 'connections' | 'sessions' | 'dialled' | 'closedUnused'>>;
  report(): readonly LinkUse[];
}

/** Adds them to the metrics. */
export function showLinkUse(metrics: Metrics, peers: () => readonly ShownPeer[]): void {
  const ofCache = ['peer', 'connections_of'];
  const connections = metrics.gauge(
    'archipelago_link_connections',
    'Link connections to a member: those that services share, or of one service.',
    ofCache,
  );
  const sessions = metrics.gauge('archipelago_link_sessions', 'Sessions on them.', ofCache);
  const dialled = metrics.counter('archipelago_link_dialled_total', 'Link connections made.', ofCache);
  const closed = metrics.counter('archipelago_link_unused_closed_total', 'Link connections closed because nothing used them.', ofCache);
  const asked = metrics.counter(
    'archipelago_link_asked_total',
    'Sessions and calls that found a connection (hit), waited for one (miss), or got none (refused).',
    ['peer', 'protocol', 'outcome'],
  );
  // Counted in plain fields, for a session is opened often and metrics are collected seldom; what is new since then is handed over. A member that
  // comes back at another address is another peer of the same name.
  const handedOver = new WeakMap<object, Map<string, number>>();
  const since = (of: object, what: string, total: number): number => {
    const known = handedOver.get(of) ?? new Map<string, number>();
    handedOver.set(of, known);
    const more = total - (known.get(what) ?? 0);
    known.set(what, total);
    return more;
  };
  metrics.onCollect(() => {
    const now = new Map<string, { readonly labels: Record<string, string>; connections: number; sessions: number }>();
    for (const peer of peers()) {
      const { name } = peer.member;
      for (const cache of peer.caches()) {
        const labels = { peer: name, connections_of: cache.name };
        const sum = now.get(`${name} ${cache.name}`) ?? { labels, connections: 0, sessions: 0 };
        now.set(`${name} ${cache.name}`, sum);
        sum.connections += cache.connections;
        sum.sessions += cache.sessions;
        dialled.add(labels, since(cache, 'dialled', cache.dialled));
        closed.add(labels, since(cache, 'closed', cache.closedUnused));
      }
      for (const { service: protocol, hits, misses, refused } of peer.report()) {
        for (const [outcome, total] of [
          ['hit', hits],
          ['miss', misses],
          ['refused', refused],
        ] as const) {
          asked.add({ peer: name, protocol, outcome }, since(peer, `${protocol} ${outcome}`, total));
        }
      }
    }
    for (const { labels, ...sum } of now.values()) {
      connections.set(labels, sum.connections);
      sessions.set(labels, sum.sessions);
    }
  });
}
