/**
 * From LDAP result codes (RFC 4511 Appendix A) to the platform's errors. The code itself stays in `fields.resultCode`.
 */
import { printable } from '#common/account-name.ts';
import type { ErrorCode } from '#common/errors/catalogue.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { LdapResult } from '#protocol/ldap/messages.ts';
import { resultCodes, resultName } from '#protocol/ldap/result-codes.ts';

const codes = new Map<number, ErrorCode>([
  [resultCodes.noSuchObject, 'DIR_NOT_FOUND'],
  [resultCodes.entryAlreadyExists, 'DIR_EXISTS'],
  [resultCodes.insufficientAccessRights, 'DIR_DENIED'],
  [resultCodes.invalidCredentials, 'DIR_DENIED'],
  [resultCodes.inappropriateAuthentication, 'DIR_DENIED'],
  [resultCodes.strongerAuthRequired, 'DIR_DENIED'],
  [resultCodes.confidentialityRequired, 'DIR_DENIED'],
  [resultCodes.authorizationDenied, 'DIR_DENIED'],
  [resultCodes.busy, 'DIR_BUSY'],
  [resultCodes.unavailable, 'DIR_BUSY'],
  [resultCodes.timeLimitExceeded, 'DIR_BUSY'],
  [resultCodes.adminLimitExceeded, 'DIR_BUSY'],
  [resultCodes.other, 'DIR_BUSY'],
]);

/** The error that a result stands for. `what` names the operation and its entry. */
export function errorFromResult(result: LdapResult, what: string, server: string): PlatformError {
  const text = result.diagnosticMessage === '' ? '' : `: ${printable(result.diagnosticMessage)}`;
  const referral = result.referrals?.[0] === undefined ? '' : `, and refers to ${printable(result.referrals[0])}`;
  return new PlatformError(
    codes.get(result.resultCode) ?? 'DIR_REFUSED',
    `${server} answers ${resultName(result.resultCode)} (${result.resultCode}) to ${what}${text}${referral}`,
    { fields: { resultCode: result.resultCode, peer: server } },
  );
}

/** The LDAP result code that an error carries; `undefined` when it came from elsewhere. */
export function resultCodeOf(error: unknown): number | undefined {
  const code = error instanceof PlatformError ? error.fields.resultCode : undefined;
  return typeof code === 'number' ? code : undefined;
}

/** Whether asking another server, or this one later, can help: the server is gone, slow or busy. */
export function isServerFailure(error: unknown): boolean {
  return error instanceof PlatformError && (error.kind === 'unavailable' || error.code === 'NET_TLS_FAILED');
}
