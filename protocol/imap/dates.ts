/**
 * Dates that clients send: IMAP's date and date-time (RFC 9051 §9), and the Date field of a message (RFC 5322 §3.3) for SENTSINCE.
 */
import { syntaxError } from './reader.ts';
import { monthNames } from './response.ts';

const dayMs = 86_400_000;

/** date: `1-Feb-2026`; the day as milliseconds at its start in UTC. */
export function parseDate(text: string): number {
  const match = /^(\d{1,2})-([A-Za-z]{3})-(\d{4})$/.exec(text);
  const day = match === null ? undefined : dayFrom(match[1] as string, match[2] as string, match[3] as string);
  if (day === undefined) throw syntaxError('Expected a date such as 1-Feb-2026');
  return day;
}

/** date-time: `"17-Jul-1996 02:44:25 -0700"` without its quotes. */
export function parseDateTime(text: string): number {
  const match = /^([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)$/.exec(text);
  const day = match === null ? undefined : dayFrom((match[1] as string).trim(), match[2] as string, match[3] as string);
  if (match === null || day === undefined) throw syntaxError('Expected a date and time such as "17-Jul-1996 02:44:25 -0700"');
  const [hours, minutes, seconds] = [Number(match[4]), Number(match[5]), Number(match[6])];
  if (hours > 23 || minutes > 59 || seconds > 60) throw syntaxError('There is no such time of day');
  const zoneMs = (Number(match[8]) * 60 + Number(match[9])) * 60_000 * (match[7] === '-' ? -1 : 1);
  return day + ((hours * 60 + minutes) * 60 + seconds) * 1000 - zoneMs;
}

/** The day in a message's Date field, its time and zone disregarded (RFC 9051 §6.4.4); `undefined` when there is none. */
export function sentDay(dateField: string | null): number | undefined {
  if (dateField === null || dateField.length > 200) return undefined;
  const match = /(?:^|[\s,])(\d{1,2})[\s-]+([A-Za-z]{3})[a-z]{0,6}[\s-]+(\d{2,4})(?:\s|$)/.exec(dateField);
  if (match === null) return undefined;
  const year = match[3] as string;
  // RFC 5322 §4.3: two-digit years up to 49 are of this century, others and three-digit ones count from 1900.
  const full = year.length === 4 ? year : String(Number(year) + (year.length === 2 && Number(year) < 50 ? 2000 : 1900));
  return dayFrom(match[1] as string, match[2] as string, full);
}

/** The day of a moment, in UTC. */
export function dayOf(ms: number): number {
  return Math.floor(ms / dayMs) * dayMs;
}

function dayFrom(day: string, month: string, year: string): number | undefined {
  const index = monthNames.findIndex((name) => name.toLowerCase() === month.toLowerCase());
  const ms = Date.UTC(Number(year), index, Number(day));
  const date = new Date(ms);
  return index >= 0 && date.getUTCDate() === Number(day) && date.getUTCMonth() === index ? ms : undefined;
}
