/** What a frontend shows of itself as metrics, looked up whenever they are collected. */
import type { Metrics } from '#common/metrics/metrics.ts';
import type { RunningMailListener } from './listeners/mail-listener.ts';
import type { Routes } from './routing/routes.ts';
import type { CertificateStatus } from './tls/frontend-tls.ts';

/** Where the figures are. */
export interface GaugeSources {
  listeners(): readonly RunningMailListener[];
  readonly routes: Routes;
  /** Since the followed directory was last heard of. */
  silentMs(): number;
  snapshotAgeMs(): number | undefined;
  certificates(): CertificateStatus | undefined;
}

/** Adds them to the metrics. */
export function registerGauges(metrics: Metrics, node: string, sources: GaugeSources): void {
  const connections = metrics.gauge('archipelago_frontend_connections', 'Clients connected, by protocol.', ['node', 'protocol']);
  const routes = metrics.gauge('archipelago_frontend_routes', 'Accounts in the route index.', ['node']);
  const bytes = metrics.gauge('archipelago_frontend_route_index_bytes', 'Memory of the route index.', ['node']);
  const silence = metrics.gauge('archipelago_frontend_directory_silence_seconds', 'Time since the followed directory was last heard of.', [
    'node',
  ]);
  const snapshotAge = metrics.gauge('archipelago_frontend_route_snapshot_age_seconds', 'Age of the snapshot of routes on disk.', ['node']);
  const certificateLeft = metrics.gauge(
    'archipelago_frontend_certificate_left_seconds',
    'Time until the first of the certificates that clients are shown expires.',
    ['node'],
  );
  const certificatesRefused = metrics.gauge(
    'archipelago_frontend_certificates_refused',
    '1 while the certificate files cannot be used as they are now, and those from before are.',
    ['node'],
  );
  metrics.onCollect(() => {
    const certificates = sources.certificates();
    if (certificates !== undefined) {
      certificateLeft.set({ node }, Math.min(...certificates.shown.map(({ leftMs }) => leftMs)) / 1000);
      certificatesRefused.set({ node }, certificates.refused === undefined ? 0 : 1);
    }
    const ageMs = sources.snapshotAgeMs();
    if (ageMs !== undefined) snapshotAge.set({ node }, ageMs / 1000);
    const byProtocol = new Map([
      ['imap', 0],
      ['pop3', 0],
      ['managesieve', 0],
    ]);
    for (const listener of sources.listeners()) {
      const { protocol } = listener.status();
      byProtocol.set(protocol, (byProtocol.get(protocol) ?? 0) + listener.connections);
    }
    for (const [protocol, count] of byProtocol) connections.set({ node, protocol }, count);
    routes.set({ node }, sources.routes.index.accounts);
    bytes.set({ node }, sources.routes.index.bytes);
    silence.set({ node }, sources.silentMs() / 1000);
  });
}
