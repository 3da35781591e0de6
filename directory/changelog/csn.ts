/**
 * Change sequence numbers in OpenLDAP's form, `20261122214700.123456Z#000000#000#000000`: time, count within that time, server,
 * modification. They are compared as text, and one source never gives the same or a lower one twice, also when the clock goes back.
 */
import type { Clock } from '#common/clock.ts';

const countMax = 0xffffff;
const pattern = /^(\d{14}\.\d{6})Z#([0-9a-f]{6})#([0-9a-f]{3})#[0-9a-f]{6}$/;

/** Gives out CSNs of this server. */
export class CsnSource {
  readonly #clock: Clock;
  readonly #serverId: number;
  #time = '';
  #count = 0;

  /** @param last the highest CSN given out or seen before, if any */
  constructor(clock: Clock, serverId: number, last: string | undefined) {
    this.#clock = clock;
    this.#serverId = serverId;
    if (last !== undefined) this.observe(last);
  }

  /** A CSN above every one given out or observed. */
  next(): string {
    const time = timeText(this.#clock.nowMs());
    if (time > this.#time) {
      this.#time = time;
      this.#count = 0;
    } else if (this.#count < countMax) {
      this.#count += 1;
    } else {
      this.#time = timeText(timeMs(this.#time) + 1);
      this.#count = 0;
    }
    return `${this.#time}Z#${hex(this.#count, 6)}#${hex(this.#serverId, 3)}#000000`;
  }

  /** Takes note of a CSN from elsewhere, so that the next one is higher. */
  observe(csn: string): void {
    const parts = pattern.exec(csn);
    if (parts === null) return;
    const [, time, count] = parts as unknown as [string, string, string];
    if (time > this.#time) {
      this.#time = time;
      this.#count = Number.parseInt(count, 16);
    } else if (time === this.#time) {
      this.#count = Math.max(this.#count, Number.parseInt(count, 16));
    }
  }
}

/** The time in a CSN, milliseconds since 1970; `undefined` when it is none. */
export function csnTimeMs(csn: string): number | undefined {
  const parts = pattern.exec(csn);
  return parts === null ? undefined : timeMs(parts[1] as string);
}

/** Generalized time (RFC 4517 §3.3.13) with seconds, as in `createTimestamp`. */
export function generalizedTime(ms: number): string {
  return `${timeText(ms).slice(0, 14)}Z`;
}

// Many changes come within one millisecond.
let lastMs = Number.NaN;
let lastText = '';

function timeText(ms: number): string {
  if (ms === lastMs) return lastText;
  lastText = textOfTime(ms);
  lastMs = ms;
  return lastText;
}

function textOfTime(ms: number): string {
  const iso = new Date(ms).toISOString();
  return `${iso.slice(0, 19).replace(/[-:T]/g, '')}.${iso.slice(20, 23)}000`;
}

function timeMs(text: string): number {
  const at = (from: number, to: number): number => Number(text.slice(from, to));
  return Date.UTC(at(0, 4), at(4, 6) - 1, at(6, 8), at(8, 10), at(10, 12), at(12, 14), at(15, 18));
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
