/**
 * What systemd is told of a unit with `Type=notify` and `NotifyAccess=all`: that it serves, and which process is its main one. Node has no datagram
 * sockets of the kind that sd_notify(3) wants, so systemd's own program does it.
 */
import { execFile } from 'node:child_process';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';

const limitMs = 5_000;

/** Says that this process serves and is the main one. `false` when nobody wants to know, or it could not be told, which is logged. */
export async function notifySystemd(log: Logger): Promise<boolean> {
  if ((process.env.NOTIFY_SOCKET ?? '') === '') return false;
  return new Promise((resolve) => {
    execFile('systemd-notify', ['--ready', `--pid=${process.pid}`], { timeout: limitMs }, (error) => {
      if (error !== null) log.warn({}, `systemd could not be told that process ${process.pid} serves: ${messageOf(error)}`);
      resolve(error === null);
    });
  });
}
