/**
 * Failures of storage, as they are told to the rest of the member.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';

/** "No room", as the system or an engine says it: nothing was written that counts. */
export function isFull(error: unknown): boolean {
  if (error instanceof PlatformError) return error.code === 'STORE_FULL';
  const errno = errnoOf(error);
  return errno === 'ENOSPC' || errno === 'EDQUOT';
}

/** What an operation on files failed with, as the store reports it. */
export function storageFailure(error: unknown, path: string): PlatformError {
  if (error instanceof PlatformError) return error;
  if (isFull(error))
    return new PlatformError('STORE_FULL', `shared storage is full: ${path} was not written`, { fields: { path }, cause: error });
  return new PlatformError('STORE_UNAVAILABLE', `shared storage failed at ${path}: ${messageOf(error)}`, {
    fields: { path },
    cause: error,
  });
}
