/** One directory server as replication reaches it: URL, identity and certificate, resolved. */
import type { ResolvedAccess } from '#directory/client/access.ts';

export interface ServerAccess extends Pick<ResolvedAccess, 'bindDn' | 'password' | 'ca'> {
  readonly url: string;
  readonly timeoutMs: number;
}
