/**
 * Who may speak on the link. Between servers there is mutual TLS under a cluster CA: the certificate's SAN holds the server's name (DNS)
 * and its role (URI), so that a stolen frontend certificate cannot act as a member. Without TLS the link stays on loopback.
 */
import type { LinkTls } from '#common/config/options.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { TlsFacts } from '#common/network/network.ts';
import { type LinkRole, roleUri } from '#protocol/link/hello.ts';

/** Certificate, key and CA as PEM texts. */
export interface LinkTlsPems {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Reads the files that a configuration names; `CONFIG_UNREADABLE` when one cannot be read. */
export async function readLinkTls(config: LinkTls | undefined, files: Files): Promise<LinkTlsPems | undefined> {
  if (config === undefined) return undefined;
  const read = async (path: string): Promise<string> => {
    try {
      return (await files.read(path)).toString('utf8');
    } catch (error) {
      throw new PlatformError('CONFIG_UNREADABLE', `the link's TLS file ${path} cannot be read: ${messageOf(error)}`, { cause: error });
    }
  };
  return { ca: await read(config.caFile), cert: await read(config.certFile), key: await read(config.keyFile) };
}

/** Throws `LINK_REFUSED` unless the peer proved its name and role by certificate, or runs in clear on loopback. */
export function checkPeer(peer: { name: string; role: LinkRole; address: string; tls: TlsFacts | undefined }): void {
  if (peer.tls === undefined) {
    if (isLoopback(peer.address)) return;
    throw new PlatformError('LINK_REFUSED', `${peer.name} at ${peer.address} speaks in clear; configure link TLS on both sides`);
  }
  const missing = [peer.name, roleUri(peer.role)].filter((name) => !peer.tls?.peerNames.includes(name));
  if (missing.length > 0) {
    throw new PlatformError(
      'LINK_REFUSED',
      `${peer.name} at ${peer.address} showed a certificate for ${peer.tls.peerNames.join(', ') || 'nobody'}; its SAN lacks ${missing.join(' and ')}`,
    );
  }
}

/** Addresses and names that never leave this machine; a Unix socket has an empty one. */
export function isLoopback(address: string): boolean {
  return address === '' || address === '::1' || address === 'localhost' || /^(?:::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address);
}
