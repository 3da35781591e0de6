/**
 * When the engine compiles what runs often. Left alone it waits for hundreds of runs, which a server that makes a change now and then takes hours
 * for; until then each process on a change's way to the replicas holds it up for longer. Such processes have it compiled after a tenth of that.
 * A frontend runs little code very often and has no need of it.
 */
import { setFlagsFromString } from 'node:v8';

/** Roles that a change passes through. */
const roles: ReadonlySet<string> = new Set(['directory', 'replication']);

/** Flags of V8, without which everything works the same. */
const flags = [
  '--invocation-count-for-maglev=50',
  '--minimum-invocations-after-ic-update=50',
  '--invocation-count-for-turbofan=500',
] as const;

/** The engine of Node 24; another one may know other flags, and says so of each that it does not know. */
const engine = /^13\./;

/** Tells the engine what kind of process this is; called before anything has run. */
export function compileEarlyFor(services: readonly { readonly role: string }[]): void {
  if (!engine.test(process.versions.v8) || !services.every(({ role }) => roles.has(role))) return;
  for (const flag of flags) setFlagsFromString(flag);
}
