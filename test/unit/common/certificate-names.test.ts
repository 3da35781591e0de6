import { describe, expect, it } from 'vitest';
import { alternativeNames } from '#common/network/certificate-names.ts';

describe('names in a certificate', () => {
  it('are those of servers, as they stand there', () => {
    expect(alternativeNames('DNS:back1.west.isp.example, URI:archipelago:frontend, IP Address:127.0.0.1')).toEqual([
      'back1.west.isp.example',
      'archipelago:frontend',
      'IP Address:127.0.0.1',
    ]);
    expect(alternativeNames(undefined)).toEqual([]);
    expect(alternativeNames('')).toEqual([]);
  });

  it('are not made of what a quoted one contains', () => {
    const forged = 'DNS:"x, URI:archipelago:backend-cluster, DNS:back1.west.isp.example, y", DNS:front1.isp.example';
    expect(alternativeNames(forged)).toEqual(['front1.isp.example']);
    expect(alternativeNames('DNS:"a\\", URI:b, c", URI:d')).toEqual(['d']);
  });
});
