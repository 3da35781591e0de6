/** What a process has used, from /proc: CPU seconds and resident memory. A rate per CPU second compares servers on a busy machine. */
import { readFileSync } from 'node:fs';

/** Clock ticks per second of /proc, which Linux fixes for programs. */
const ticksPerSecond = 100;

/** CPU seconds so far, all threads. */
export function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** Resident memory, kB. */
export function residentKb(pid: number): number {
  return statusKb(readFileSync(`/proc/${pid}/status`, 'latin1'), 'VmRSS');
}

/** Resident memory, MB; `anonymous` leaves mapped files out, which the system may take back; `peak` is the most it ever had. */
export function memoryMb(pid: number): { readonly resident: number; readonly anonymous: number; readonly peak: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1');
  const kilobytes = (name: string): number => statusKb(text, name);
  return {
    resident: Math.round(kilobytes('VmRSS') / 1024),
    anonymous: Math.round(kilobytes('RssAnon') / 1024),
    peak: Math.round(kilobytes('VmHWM') / 1024),
  };
}

function statusKb(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0);
}
