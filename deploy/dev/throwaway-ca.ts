/**
 * A certificate authority for one installation that is meant to be thrown away: the demo, the tests and the sample node files.
 * Its key stays in memory unless the data directory is kept, and nothing outside trusts it.
 */
import { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
// @peculiar/x509 resolves its parts by decorators and asks for this polyfill to be loaded first.
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import type { Clock } from '#common/clock.ts';
import type { Random } from '#common/random.ts';

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const validForMs = 90 * 24 * 3_600_000;
const skewMs = 3_600_000;

/** PEM texts of one server. */
export interface IssuedCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** Issues server certificates; see the header. */
export interface ThrowawayCa {
  /** PEM of the authority's certificate. */
  readonly certificate: string;
  /** PEM of certificate and key, to be kept where the next run may go on with them. */
  readonly kept: IssuedCertificate;
  /** @param names DNS names, IP addresses and URIs for the SAN; the first is the common name */
  issue(names: readonly string[]): Promise<IssuedCertificate>;
}

/** Makes an authority, or goes on with a kept one. */
export async function createThrowawayCa(clock: Clock, random: Random, kept?: IssuedCertificate): Promise<ThrowawayCa> {
  const validity = (): { notBefore: Date; notAfter: Date } => ({
    notBefore: new Date(clock.nowMs() - skewMs),
    notAfter: new Date(clock.nowMs() + validForMs),
  });
  // The first octet is kept below 0x80 and above 0, so that the serial number is a positive integer (RFC 5280 §4.1.2.2).
  const serial = (): string => `01${random.bytes(15).toString('hex')}`;
  const root = kept === undefined ? await newRoot(validity(), serial()) : await readRoot(kept);

  return {
    certificate: root.pem.certificate,
    kept: root.pem,
    async issue(names) {
      const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);
      const certificate = await x509.X509CertificateGenerator.create({
        serialNumber: serial(),
        subject: `CN=${names[0]}`,
        issuer: root.certificate.subject,
        ...validity(),
        signingKey: root.key,
        publicKey: keys.publicKey,
        signingAlgorithm: keyAlgorithm,
        extensions: [
          new x509.BasicConstraintsExtension(false),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          // serverAuth and clientAuth: the link is mutual.
          new x509.ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']),
          new x509.SubjectAlternativeNameExtension(names.map(generalName)),
          await x509.AuthorityKeyIdentifierExtension.create(root.certificate),
        ],
      });
      return { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
    },
  };
}

interface Root {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
  readonly pem: IssuedCertificate;
}

async function newRoot(validity: { notBefore: Date; notAfter: Date }, serialNumber: string): Promise<Root> {
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber,
    name: 'CN=Archipelago throw-away CA',
    ...validity,
    keys,
    signingAlgorithm: keyAlgorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate, key: keys.privateKey, pem: { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) } };
}

async function readRoot(pem: IssuedCertificate): Promise<Root> {
  const der = x509.PemConverter.decode(pem.key)[0] as ArrayBuffer;
  const key = await webcrypto.subtle.importKey('pkcs8', der, keyAlgorithm, true, ['sign']);
  return { certificate: new x509.X509Certificate(pem.certificate), key, pem };
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

function generalName(name: string): { type: 'dns' | 'ip' | 'url'; value: string } {
  if (isIP(name) !== 0) return { type: 'ip', value: name };
  return name.includes(':') ? { type: 'url', value: name } : { type: 'dns', value: name };
}
