/**
 * HAProxy's agent-check: whoever connects is told in one line whether this server wants connections, and how many of its share.
 *
 *   up 100%     drain     down # why
 *
 * (HAProxy configuration manual, "agent-check"; `ready` takes back an earlier `drain`.)
 */
import type { Clock } from '#common/clock.ts';
import type { Listener, Network } from '#common/network/network.ts';
import type { FrontendListener } from '#frontend/config.ts';

/** What is to be told. */
export interface AgentAnswer {
  readonly isReady: boolean;
  readonly isWithdrawn: boolean;
  /** Percent. */
  readonly weight: number;
  /** Why it is not ready, in one line. */
  readonly reason: string;
}

/** Time for whoever asked to hang up, milliseconds. */
const hangUpMs = 2000;

/** Opens the port. Rejects when it cannot be bound. */
export function startAgent(
  listener: FrontendListener,
  { network, clock }: { readonly network: Network; readonly clock: Clock },
  answer: () => AgentAnswer,
): Promise<Listener> {
  return network.listen({ host: listener.address, port: listener.port }, (connection) => {
    const timer = clock.after(hangUpMs, () => connection.destroy());
    connection.handle({ data: () => {}, close: () => timer.cancel() });
    connection.write(agentLine(answer()));
    connection.end();
  });
}

/** The line itself. */
export function agentLine({ isReady, isWithdrawn, weight, reason }: AgentAnswer): string {
  if (isWithdrawn || weight === 0) return 'drain\n';
  // Printable only, and one line: HAProxy shows it to its operator.
  if (!isReady) return `down #${reason.replace(/[^ -~]/g, '?').slice(0, 80)}\n`;
  return `up ready ${weight}%\n`;
}
