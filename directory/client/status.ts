/** What a Directory Server reports of itself; plain JSON. */

/** One Directory Server's whole picture. */
export interface DirectoryStatus {
  readonly role: 'directory';
  readonly name: string;
  readonly mode: 'master' | 'replica';
  /** Number of the mastership that this server knows of. */
  readonly term: number;
  /** Where writers are referred to; `undefined` on the master. */
  readonly masterUrl: string | undefined;
  /** What is unusual about its role: promoted, superseded, in doubt, frozen; empty when nothing is. */
  readonly note: string;
  readonly urls: readonly string[];
  readonly suffix: string;
  readonly entries: number;
  readonly accounts: number;
  readonly contextCsn: string;
  /** Number of the last change in the journal. */
  readonly lastChangeNumber: number;
  readonly connections: number;
  readonly followers: number;
  /** Binds that failed, binds refused for failures before them, and addresses refused now. */
  readonly binds?: { readonly failed: number; readonly refused: number; readonly addressesRefused: number };
  /** Memory that what was read takes, and what it may take; the latter with pages of the database file, which the former leaves out. Bytes. */
  readonly cache?: { readonly bytes: number; readonly bytesMax: number };
  readonly operations: Readonly<Record<string, number>>;
}
