/**
 * The Cluster Network (Guide: Cluster Server Configuration): addresses that link connections are accepted from. An entry is an address
 * or an IPv4 range as `192.168.0.0/24`.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** Compiles the list; an entry that is neither address nor range is `CONFIG_INVALID`. */
export function clusterNetwork(entries: readonly string[]): (address: string) => boolean {
  const exact = new Set<string>();
  const ranges: { base: number; mask: number }[] = [];
  for (const entry of entries) {
    const [address, bits, ...more] = entry.trim().toLowerCase().split('/');
    const base = ipv4(address ?? '');
    if (bits === undefined && (base !== undefined || (address ?? '').includes(':'))) {
      exact.add(address as string);
    } else if (base !== undefined && /^\d{1,2}$/.test(bits ?? '') && Number(bits) <= 32 && more.length === 0) {
      const mask = Number(bits) === 0 ? 0 : (0xffff_ffff << (32 - Number(bits))) >>> 0;
      ranges.push({ base: (base & mask) >>> 0, mask });
    } else {
      throw new PlatformError(
        'CONFIG_INVALID',
        `clusterNetwork: "${entry}" is neither an address nor an IPv4 range such as 192.168.0.0/24`,
      );
    }
  }
  return (remote) => {
    const address = remote.toLowerCase().replace(/^::ffff:(?=\d)/, '');
    if (exact.has(address)) return true;
    const value = ipv4(address);
    return value !== undefined && ranges.some(({ base, mask }) => (value & mask) >>> 0 === base);
  };
}

function ipv4(text: string): number | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  if (parts === undefined || parts.some((part) => part > 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}
