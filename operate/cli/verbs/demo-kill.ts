/** `archipelago demo kill MEMBER`: what a cluster does without one of its members. */
import type { AskApi } from '../connect.ts';
import type { VerbResult } from '../output.ts';
import { exitCodes } from '../terminal.ts';

/** Ends a member of the running demo; nothing is handed over. */
export async function demoKill(ask: AskApi, member: string): Promise<VerbResult> {
  await ask(`/api/v1/members/${encodeURIComponent(member)}/kill`, { method: 'POST' });
  return {
    document: { member, killed: true },
    names: [member],
    render: () => `${member} is dead; its accounts open on another member when they are next asked for\n`,
    exitCode: exitCodes.ok,
  };
}
