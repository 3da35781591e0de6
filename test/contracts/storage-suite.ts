/** What the account store promises, whatever the members share: one suite for every storage engine. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { parseMemberName } from '#common/host-server.ts';
import { codeOf, Ledger, mailboxOf, opening, openPatiently, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';

/** What becomes of the next commit, on an engine that can be made to fail. */
export type CommitFault = 'reply lost' | 'full' | 'arrives late';

export interface Engine {
  /** A member's door to the storage. */
  open(): Promise<AccountStore>;
  /** From now on commits meet this, until `heal`; a late one arrives then. Missing where the storage is a real disk. */
  readonly faults?: { cause(fault: CommitFault): void; heal(): void; isHolding(): boolean };
  /** Names of what is stored for the account. */
  stored(): Promise<string[]>;
}

/** Snapshots are taken early, so that a few commits meet all that an account can. */
export const tuning = { snapshotRecords: 4, snapshotAtCloseSlots: 2 };

const back1 = { member: parseMemberName('back1.west.isp.example'), incarnation: 'a' };
const back2 = { member: parseMemberName('back2.west.isp.example'), incarnation: 'b' };

/** Runs the suite. `start` makes a storage of its own for each test; what it has to undo it leaves with its argument. */
export function describeStorage(name: string, start: (undo: AsyncDisposableStack) => Promise<Engine>): void {
  describe(`storage engine ${name}`, () => {
    let undo: AsyncDisposableStack;
    afterEach(() => undo.disposeAsync());
    let engine: Engine;
    let store: AccountStore;
    let other: AccountStore;
    beforeEach(async () => {
      undo = new AsyncDisposableStack();
      engine = await start(undo);
      store = await engine.open();
      other = await engine.open();
    });

    it('passes its probe and leaves nothing of it behind', async () => {
      const { checks } = await store.probe();
      expect(checks.length).toBeGreaterThan(7);
      expect(await engine.stored()).toEqual([]);
      expect(await store.state(uuid)).toBe('absent');
    });

    it('keeps what was acknowledged over closings and openings, in groups and large messages too', async () => {
      const ledger = new Ledger();
      for (let round = 0; round < 3; round += 1) {
        const account = await (round % 2 === 0 ? store : other).open(uuid, opening('back1'));
        expect(await ledger.violations(account)).toEqual([]);
        await ledger.deliver(account, [`one-${round}`]);
        await ledger.deliver(account, [`a-${round}`, `b-${round}`, `c-${round}`]);
        await ledger.deliver(account, [`large-${round}`], 270_000);
        await ledger.deliver(account, [`medium-${round}`], 90_000);
        await ledger.remove(account, `b-${round}`);
        expect(await ledger.violations(account)).toEqual([]);
        await account.close();
      }
      const account = await other.open(uuid, opening('back2'));
      expect(account.epoch).toBe(4);
      expect(account.isReadOnly).toBe(false);
      expect(await ledger.violations(account)).toEqual([]);
      expect((await store.checkAccount(uuid)).findings).toEqual([]);
    });

    it('keeps scripts, and which one is active, over openings and snapshots', async () => {
      const ledger = new Ledger();
      const account = await store.open(uuid, opening('back1'));
      await account.putScript('lists', 'discard;');
      await account.putScript('other', 'keep;');
      await account.activateScript('lists');
      await account.renameScript('lists', 'Lists für alle');
      await account.close();
      const second = await other.open(uuid, opening('back2'));
      expect([...second.scripts().texts]).toEqual([
        ['other', 'keep;'],
        ['Lists für alle', 'discard;'],
      ]);
      expect(second.scripts().active).toBe('Lists für alle');
      expect(await codeOf(second.deleteScript('Lists für alle'))).toBe('SCRIPT_ACTIVE');
      expect(await codeOf(second.renameScript('other', 'Lists für alle'))).toBe('SCRIPT_EXISTS');
      expect(await codeOf(second.activateScript('none'))).toBe('SCRIPT_NOT_FOUND');
      expect(await codeOf(second.putScript('bad\nname', 'keep;'))).toBe('SCRIPT_INVALID');
      expect(await codeOf(second.putScript('big', 'x'.repeat(300_000)))).toBe('MBOX_LIMIT');
      for (let i = 0; i < 30; i += 1) await second.putScript(`s${i}`, 'keep;');
      expect(await codeOf(second.putScript('one more', 'keep;'))).toBe('MBOX_LIMIT');
      await second.activateScript('');
      for (let i = 0; i < 30; i += 1) await second.deleteScript(`s${i}`);
      for (const id of ['a', 'b', 'c', 'd', 'e']) await ledger.deliver(second, [id]);
      await second.close();
      const third = await store.open(uuid, opening('back1'));
      expect([...third.scripts().texts.keys()]).toEqual(['other', 'Lists für alle']);
      expect(third.scripts().active).toBeUndefined();
      await third.deleteScript('other');
      await third.deleteScript('Lists für alle');
      await third.close();
      expect((await store.checkAccount(uuid)).findings).toEqual([]);
      const fourth = await store.open(uuid, opening('back1'));
      expect(fourth.scripts().texts.size).toBe(0);
      expect(await ledger.violations(fourth)).toEqual([]);
    });

    it('takes many changes of one account at once', async () => {
      const account = await store.open(uuid, opening('back1'));
      const ledger = new Ledger();
      await ledger.deliver(
        account,
        Array.from({ length: 120 }, (_, i) => `m${i}`),
        2_000,
      );
      await account.close();
      const again = await other.open(uuid, opening('back2'));
      expect(mailboxOf(again, 'INBOX').messageCount).toBe(120);
      expect(await ledger.violations(again)).toEqual([]);
    });

    it('deposes the owner whom another one overtakes, and the same delivery is stored once', async () => {
      const ledger = new Ledger();
      const sleeper = await store.open(uuid, opening('back1'));
      await ledger.deliver(sleeper, ['one']);
      const owner = await other.open(uuid, opening('back2'));
      await ledger.deliver(owner, ['two']);
      expect(await codeOf(ledger.deliver(sleeper, ['three']))).toBe('CLUSTER_DEPOSED');
      expect(sleeper.isOpen).toBe(false);
      await sleeper.close();
      await ledger.deliver(owner, ['one', 'three']);
      expect(await ledger.violations(owner)).toEqual([]);
      expect(owner.isOpen).toBe(true);
    });

    it('tells an owner whom another one overtook, before it writes anything', async () => {
      const ledger = new Ledger();
      const sleeper = await store.open(uuid, opening('back1'));
      await ledger.deliver(sleeper, ['one']);
      expect(await sleeper.checkHeld()).toBe(true);
      await ledger.deliver(sleeper, ['two']);
      const owner = await other.open(uuid, opening('back2'));
      expect(await sleeper.checkHeld()).toBe(false);
      expect(sleeper.isOpen).toBe(false);
      expect(await owner.checkHeld()).toBe(true);
      await ledger.deliver(owner, ['three']);
      expect(await ledger.violations(owner)).toEqual([]);
    });

    it('does not take for damage what a sleeper misses because its successor has removed it', async () => {
      const ledger = new Ledger();
      const sleeper = await store.open(uuid, opening('back1'));
      await ledger.deliver(sleeper, ['one']);
      const { id } = mailboxOf(sleeper, 'INBOX');
      const owner = await other.open(uuid, opening('back2'));
      await owner.expunge(id, [1], true);
      const message = { raw: Buffer.from('Subject: more\r\n\r\n'), summary: Buffer.from('s'), flags: [], internalDateMs: 0 };
      for (let i = 0; i < 20; i += 1) await owner.append(id, [message]);
      await owner.close();
      // In a bucket it may still have it in memory.
      expect(['CLUSTER_DEPOSED', 'no failure']).toContain(await codeOf(sleeper.readRaw(id, 1)));
      expect(sleeper.isReadOnly).toBe(false);
      const last = await store.open(uuid, opening('back3'));
      expect(last.isReadOnly).toBe(false);
      expect(mailboxOf(last, 'INBOX').messageCount).toBe(20);
    });

    it('does not let a sleeper write into numbers that compaction freed', async () => {
      const ledger = new Ledger();
      const sleeper = await store.open(uuid, opening('back1'));
      await ledger.deliver(sleeper, ['one']);
      const owner = await other.open(uuid, opening('back2'));
      for (let i = 0; i < 20; i += 1) await ledger.deliver(owner, [`m${i}`]);
      await owner.close();
      expect(await codeOf(ledger.deliver(sleeper, ['late']))).toBe('CLUSTER_DEPOSED');
      const last = await store.open(uuid, opening('back3'));
      expect(await ledger.violations(last)).toEqual([]);
      expect(last.isReadOnly).toBe(false);
    });

    it('has one owner when several open at the same time, and loses nothing', async () => {
      const ledger = new Ledger();
      const contend = async (door: AccountStore, member: string): Promise<void> => {
        for (let round = 0; round < 4; round += 1) {
          const code = await codeOf(
            door.open(uuid, opening(member)).then(async (account) => {
              for (let i = 0; i < 3; i += 1) await ledger.deliver(account, [`${member}-${round}-${i}`]);
            }),
          );
          expect(['no failure', 'CLUSTER_DEPOSED']).toContain(code);
        }
      };
      await Promise.all([contend(store, 'back1'), contend(other, 'back2'), contend(await engine.open(), 'back3')]);
      const account = await openPatiently(store, 'back4');
      expect(await ledger.violations(account)).toEqual([]);
      expect(account.isReadOnly).toBe(false);
    });

    it('keeps its log short, with the bodies that are wanted and without the others', async () => {
      const ledger = new Ledger();
      const account = await store.open(uuid, opening('back1'));
      for (let i = 0; i < 30; i += 1) await ledger.deliver(account, [`m${i}`], i % 10 === 0 ? 280_000 : 9_000);
      for (let i = 0; i < 25; i += 1) await ledger.remove(account, `m${i}`);
      await account.close();
      const again = await other.open(uuid, opening('back2'));
      await ledger.deliver(again, ['x']);
      await ledger.deliver(again, ['y']);
      await again.close();
      const check = await store.checkAccount(uuid);
      expect(check.findings).toEqual([]);
      expect(check.slots).toBeLessThan(16);
      expect(check.snapshots).toBeLessThanOrEqual(2);
      expect((await engine.stored()).length).toBeLessThan(35);
      expect(await ledger.violations(await store.open(uuid, opening('back3')))).toEqual([]);
    });

    it('checks an account while it is in use, and says when there is none', async () => {
      expect(await codeOf(store.checkAccount(uuid))).toBe('ACCT_NOT_FOUND');
      const ledger = new Ledger();
      const account = await store.open(uuid, opening('back1'));
      await ledger.deliver(account, ['one', 'two']);
      const check = await other.checkAccount(uuid);
      expect(check).toMatchObject({ epoch: 1, messages: 2, bodies: 2, findings: [] });
      await ledger.deliver(account, ['three']);
      expect(account.isOpen).toBe(true);
    });

    it('entombs, restores and purges an account', async () => {
      const ledger = new Ledger();
      const owner = await store.open(uuid, opening('back1'));
      await ledger.deliver(owner, ['one']);
      await other.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 1234 });
      expect(await codeOf(ledger.deliver(owner, ['two']))).toBe('CLUSTER_DEPOSED');
      expect(await store.state(uuid)).toBe('tombstone');
      expect(await codeOf(store.open(uuid, opening('back1')))).toBe('ACCT_REMOVED');
      await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 9999 });
      expect(await store.listTombstones()).toEqual([{ uuid, name: 'alice@isp.example', removedAtMs: 1234 }]);
      await store.restore(uuid);
      expect(await ledger.violations(await other.open(uuid, opening('back2')))).toEqual([]);
      expect(await codeOf(store.purge(uuid))).toBe('ACCT_EXISTS');
      await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 5678 });
      await store.purge(uuid);
      expect(await other.state(uuid)).toBe('absent');
      expect(await other.listTombstones()).toEqual([]);
      expect(await engine.stored()).toEqual([]);
    });

    it('gives a term to one claimant, for ever', async () => {
      expect(await store.highestTerm()).toBe(0);
      const answers = await Promise.all([store.claimTerm(1, back1), other.claimTerm(1, back2)]);
      expect(answers.filter((isClaimed) => isClaimed)).toHaveLength(1);
      const [owner, loser] = answers[0] === true ? [back1, back2] : [back2, back1];
      expect(await other.readTerm(1)).toEqual(owner);
      expect(await store.claimTerm(1, owner)).toBe(true);
      expect(await other.claimTerm(1, loser)).toBe(false);
      for (const term of [2, 3, 4, 5, 6, 17]) expect(await other.claimTerm(term, back2)).toBe(true);
      expect(await store.highestTerm()).toBe(17);
      expect(await store.readTerm(16)).toBeUndefined();
    });

    it('stores intents whole, creates them once, replaces and removes them', async () => {
      await store.intents.put('b', { step: 1 });
      await other.intents.put('b', { step: 2, text: 'ü' });
      const answers = await Promise.all([store.intents.create('a', 1), other.intents.create('a', 1)]);
      expect(answers.filter((isCreated) => isCreated)).toHaveLength(1);
      expect(await store.intents.list()).toEqual([
        { id: 'a', value: 1 },
        { id: 'b', value: { step: 2, text: 'ü' } },
      ]);
      await store.intents.remove('a');
      await store.intents.remove('never');
      expect((await other.intents.list()).map(({ id }) => id)).toEqual(['b']);
      expect(await other.intents.create('a', 2)).toBe(true);
    });
  });
}
