/** Errors of system calls, as Node shows them: `code` and `syscall`, and both in the message. */
import { getSystemErrorName } from 'node:util';

/** @param what number or name of the error */
export function systemError(syscall: string, what: number | string, where?: string): Error {
  const code = typeof what === 'string' ? what : getSystemErrorName(-what);
  return Object.assign(new Error(`${syscall} ${code}${where === undefined ? '' : ` ${where}`}`), { code, syscall });
}
