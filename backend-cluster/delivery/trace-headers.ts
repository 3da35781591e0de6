/**
 * Headers that a delivery puts before a message: Return-Path and Received (RFC 5321 §4.4), and Delivered-To, by which loops are seen
 * and people learn which of their addresses was used.
 */
import type { AccountName } from '#common/account-name.ts';

/** Facts of one delivery. */
export interface TraceFacts {
  /** Empty for bounces. */
  readonly sender: string;
  readonly recipient: AccountName;
  /** Name that the frontend gave in LHLO. */
  readonly from: string;
  /** This member. */
  readonly by: string;
  readonly deliveryId: string;
  readonly receivedAtMs: number;
}

/** The three headers with CRLF line ends. */
export function traceHeaders(facts: TraceFacts): Buffer {
  return Buffer.from(
    [
      `Return-Path: <${facts.sender}>`,
      `Delivered-To: ${facts.recipient}`,
      `Received: from ${facts.from} by ${facts.by} with LMTP id ${facts.deliveryId}`,
      `\tfor <${facts.recipient}>; ${mailDate(facts.receivedAtMs)}`,
      '',
    ].join('\r\n'),
  );
}

/** Date and time of RFC 5322 §3.3, in UTC. */
export function mailDate(atMs: number): string {
  return new Date(atMs).toUTCString().replace('GMT', '+0000');
}
