/**
 * The domain of a login name that has none: the address that the client reached decides, then the listener, then the frontend
 * (Guide: domains with dedicated addresses).
 */
import { type DomainName, tryParseDomainName } from '#common/account-name.ts';
import type { FrontendConfig, FrontendListener } from '#frontend/config.ts';

/** Makes the answerer for one listener. */
export function defaultDomains(
  config: Pick<FrontendConfig, 'defaultDomain' | 'addressDomains'>,
  listener: Pick<FrontendListener, 'domain'>,
): (localAddress: string) => DomainName | undefined {
  const byAddress = new Map(
    (config.addressDomains ?? []).map(({ address, domain }) => [address.toLowerCase(), tryParseDomainName(domain)]),
  );
  const otherwise = tryParseDomainName(listener.domain ?? config.defaultDomain ?? '');
  return (localAddress) => byAddress.get(localAddress.toLowerCase().replace(/^::ffff:(?=\d)/, '')) ?? otherwise;
}
