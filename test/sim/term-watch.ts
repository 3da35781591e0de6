/**
 * Watches the Controller's terms while a history runs (I6): what a member has accepted never goes down, not even over its restarts, and
 * no two processes lead in one term.
 */
import type { MemberNode } from './member-node.ts';

/** See the header of this file. */
export class TermWatch {
  readonly #members: readonly MemberNode[];
  readonly #violations: string[];
  readonly #accepted = new Map<string, number>();
  readonly #leaders = new Map<number, string>();

  constructor(members: readonly MemberNode[], violations: string[]) {
    this.#members = members;
    this.#violations = violations;
  }

  look(): void {
    for (const { member, machine, starts } of this.#members) {
      if (member === undefined) continue;
      const { term, isController } = member.leadership();
      const accepted = this.#accepted.get(machine.name) ?? 0;
      if (term < accepted) this.#violations.push(`I6: ${machine.name} went from term ${accepted} back to ${term}`);
      this.#accepted.set(machine.name, term);
      if (!isController) continue;
      const process = `${machine.name}, start ${starts}`;
      const leader = this.#leaders.get(term) ?? process;
      if (leader !== process) this.#violations.push(`I6: ${leader} and ${process} both led in term ${term}`);
      this.#leaders.set(term, leader);
    }
  }
}
