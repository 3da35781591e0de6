/**
 * Watches the Controller's terms while a history runs (I6): what a member has accepted never goes down, not even over its restarts, and
 * no two processes lead in one term.
 */
import type { MemberNode } from './member-node.ts';

interface Seen {
  term: number;
  isController: boolean;
  starts: number;
}

/** See the header of this file. */
export class TermWatch {
  readonly #members: readonly MemberNode[];
  readonly #violations: string[];
  readonly #accepted = new Map<string, number>();
  readonly #leaders = new Map<number, string>();
  /** What was seen at the last look, by member: most steps change nothing of it. */
  readonly #seen: Seen[];

  constructor(members: readonly MemberNode[], violations: string[]) {
    this.#members = members;
    this.#violations = violations;
    this.#seen = members.map(() => ({ term: -1, isController: false, starts: -1 }));
  }

  look(): void {
    for (let at = 0; at < this.#members.length; at += 1) {
      const { member, machine, starts } = this.#members[at] as MemberNode;
      if (member === undefined) continue;
      const { term, isController } = member.leadership();
      const seen = this.#seen[at] as Seen;
      if (seen.term === term && seen.isController === isController && seen.starts === starts) continue;
      Object.assign(seen, { term, isController, starts });
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
