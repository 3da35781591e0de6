/**
 * Search filters: the tree (RFC 4511 §4.5.1.7).
 */

/** A filter. `and` and `or` without members are absolute true and false (RFC 4526). Values are what is meant, never escaped text. */
export type Filter =
  | { readonly kind: 'and' | 'or'; readonly filters: readonly Filter[] }
  | { readonly kind: 'not'; readonly filter: Filter }
  | { readonly kind: 'equal' | 'greaterOrEqual' | 'lessOrEqual' | 'approx'; readonly attribute: string; readonly value: Buffer }
  | {
      readonly kind: 'substrings';
      readonly attribute: string;
      readonly initial: Buffer | undefined;
      readonly any: readonly Buffer[];
      readonly final: Buffer | undefined;
    }
  | { readonly kind: 'present'; readonly attribute: string }
  | {
      readonly kind: 'extensible';
      readonly rule: string | undefined;
      readonly attribute: string | undefined;
      readonly value: Buffer;
      readonly dnAttributes: boolean;
    };

/** Deepest nesting of `and`, `or` and `not` that is accepted, from the wire and from text. */
export const filterDepthMax = 32;

/** Most parts (tests and substrings) of one filter, from the wire and from text. */
export const filterNodesMax = 4096;
