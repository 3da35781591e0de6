/**
 * The extended operation by which a Directory Server is asked about its access rules, and told to read them again. For the right `admin`. Request
 * and answer are JSON.
 */

/** OID of the operation. */
export const accessRulesOid = '2.25.11233386167282336856843219451289651251.3.9';

/** What is asked. */
export type AccessRulesRequest =
  | { readonly ask: 'show' }
  | { readonly ask: 'reload' }
  | {
      readonly ask: 'explain';
      /** A DN, `u:local@domain`, or nothing for anonymous. */
      readonly who: string;
      readonly dn: string;
      /** An attribute, `entry` or `children`. */
      readonly attribute: string;
      /** Address it would come from; default: a Unix socket. */
      readonly peer?: string;
      /** Strength of TLS in bits; default 256. */
      readonly ssf?: number;
    };

/** A rule in force. */
export interface ShownRule {
  readonly number: number;
  readonly origin: 'configured' | 'built-in';
  readonly rule: string;
}

/** Answer to `show` and `reload`. */
export interface ShownRules {
  readonly rules: readonly ShownRule[];
}

/** Answer to `explain`. */
export interface ExplainedAccess {
  readonly who: string;
  readonly dn: string;
  readonly attribute: string;
  /** Names of the privileges that are given. */
  readonly privileges: readonly string[];
  /** The same as people read it. */
  readonly granted: string;
  /** All rules up to the one that decides. */
  readonly steps: readonly (ShownRule & { readonly outcome: string; readonly decides: boolean })[];
}
