/**
 * The options of every role, gathered: what a node file may hold. Read by `archipelago up`, by `config check` and by the reference page.
 */

import type { Static } from 'typebox';
import { BackendConfig } from '#backend-cluster/config.ts';
import { type LoadedNodeFile, loadNodeFile } from '#common/config/node-file.ts';
import { checkDirectory, DirectoryConfig } from '#directory/config.ts';
import { FrontendConfig } from '#frontend/config.ts';
import { ReplicationConfig } from '#replication/config.ts';

/** Schemas of the services, by role. */
export const serviceSchemas = {
  directory: DirectoryConfig,
  replication: ReplicationConfig,
  'backend-cluster': BackendConfig,
  frontend: FrontendConfig,
} as const;

/** Options of any service. */
export type ServiceConfig = Static<(typeof serviceSchemas)[keyof typeof serviceSchemas]>;

/** Reads a node file's text with all roles known. */
export function loadServicesFile(path: string, text: string): LoadedNodeFile<ServiceConfig> {
  return loadNodeFile(path, text, serviceSchemas, { directory: checkDirectory });
}
