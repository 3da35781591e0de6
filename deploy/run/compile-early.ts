/**
 * When the engine compiles what runs often. Left alone it waits for hundreds of runs, which a server that makes a change now and then takes hours
 * for; until then each process on a change's way to the replicas holds it up for longer. Such processes have it compiled after a tenth of that,
 * from when they are ready: a first load runs its code very often, and cost replica and service a seventh more with code compiled too early.
 * A frontend runs little code very often and has no need of it.
 */
import { setFlagsFromString } from 'node:v8';
import type { RunningService } from '#common/lifecycle.ts';

/** Roles that a change passes through. */
const roles: ReadonlySet<string> = new Set(['directory', 'replication']);

/** Flags of V8, without which everything works the same. */
const flags = [
  '--invocation-count-for-maglev=50',
  '--minimum-invocations-after-ic-update=50',
  '--invocation-count-for-turbofan=500',
] as const;

/** How often a service that is not ready is asked again. */
const lookEveryMs = 500;

/** The engine of Node 24; another one may know other flags, and says so of each that it does not know. */
const engine = /^13\./;

/** Tells the engine what kind of process this is, once its services are ready. */
export function compileEarlyFor(services: readonly Pick<RunningService<unknown>, 'role' | 'readiness'>[]): void {
  if (!engine.test(process.versions.v8) || !services.every(({ role }) => roles.has(role))) return;
  const look = (): void => {
    if (!services.every((service) => service.readiness().every(({ ok }) => ok))) return;
    clearInterval(timer);
    for (const flag of flags) setFlagsFromString(flag);
  };
  const timer = setInterval(look, lookEveryMs).unref();
  look();
}
