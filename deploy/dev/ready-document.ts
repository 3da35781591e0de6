/**
 * What `--ready-file` holds once everything serves: every endpoint and credential of the federation, for scripts and tests.
 */
import type { SampleAccount } from './sample-mail.ts';

/** Addresses of one frontend, each `host:port`. */
export interface FrontendEndpoints {
  readonly name: string;
  readonly imap: string;
  readonly imaps: string;
  readonly pop3: string;
  readonly pop3s: string;
  readonly smtp: string;
  readonly submission: string;
  readonly http: string;
  /** ManageSieve. */
  readonly sieve: string;
}

/** A subset answers at its first frontend's addresses; `frontends` lists all of them. */
export interface SubsetEndpoints extends Omit<FrontendEndpoints, 'name'> {
  readonly frontends: readonly FrontendEndpoints[];
}

/** A directory server's URLs: `url` is ldap:// with StartTLS on offer, `ldapsUrl` is implicit TLS. */
export interface DirectoryEndpoints {
  readonly name: string;
  readonly url: string;
  readonly ldapsUrl: string;
}

/** See the header of this file. */
export interface ReadyDocument {
  readonly pid: number;
  readonly directory: {
    readonly suffix: string;
    readonly master: DirectoryEndpoints;
    readonly replicas: readonly DirectoryEndpoints[];
    readonly adminDn: string;
    readonly adminPassword: string;
    readonly provisionerDn: string;
    readonly provisionerPassword: string;
  };
  readonly subsets: Readonly<Record<string, SubsetEndpoints>>;
  readonly clusters: Readonly<Record<string, { readonly members: readonly { readonly name: string; readonly link: string }[] }>>;
  /** URL of the console and the admin API; both take `adminPassword`. */
  readonly console: string;
  readonly adminPassword: string;
  readonly accounts: readonly SampleAccount[];
  /** PEM file of the CA that signed every certificate. */
  readonly caFile: string;
}
