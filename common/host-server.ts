/**
 * `hostServer`: which Backend Dynamic Cluster hosts an account. Its value is the name of that cluster's members without their first
 * label (Guide: Cluster Of Clusters): member `back1.west.isp.example` belongs to cluster `west.isp.example`. Only this file knows that rule.
 */

import { printable, tryParseDomainName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';

declare const brand: unique symbol;

/** Name of a Backend Dynamic Cluster, e.g. `west.isp.example`; lower case. */
export type ClusterName = string & { readonly [brand]: 'ClusterName' };
/** Full name of a cluster member, e.g. `back1.west.isp.example`; lower case. */
export type MemberName = string & { readonly [brand]: 'MemberName' };

/** Parses a cluster name; `undefined` when it is none. */
export function tryParseClusterName(text: string): ClusterName | undefined {
  return tryParseDomainName(text) as ClusterName | undefined;
}

/** Parses a cluster name or throws `NAME_CLUSTER_INVALID`. */
export function parseClusterName(text: string): ClusterName {
  const name = tryParseClusterName(text);
  if (name === undefined) {
    throw new PlatformError('NAME_CLUSTER_INVALID', `"${printable(text)}" is not a cluster name; expected a name such as west.isp.example`);
  }
  return name;
}

/** Parses a member name, which has at least two labels, or throws `NAME_MEMBER_INVALID`. */
export function parseMemberName(text: string): MemberName {
  const name = tryParseDomainName(text);
  if (name === undefined || !name.includes('.')) {
    throw new PlatformError(
      'NAME_MEMBER_INVALID',
      `"${printable(text)}" is not a member name; expected a name such as back1.west.isp.example`,
    );
  }
  return name as unknown as MemberName;
}

/** The cluster that a member belongs to: its name without the first label. */
export function clusterOf(member: MemberName): ClusterName {
  return member.slice(member.indexOf('.') + 1) as ClusterName;
}
