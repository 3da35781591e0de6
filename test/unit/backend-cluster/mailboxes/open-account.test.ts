import { randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, it } from 'vitest';
import type { AppendRequest, OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import type { AccountStore, StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';
import { mailboxOf, opening, storeOn, uuid } from '../storage/ledger.ts';

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'no failure',
    (error: unknown) => (error instanceof PlatformError ? error.code : String(error)),
  );

const message = (text: string, more: Partial<AppendRequest> = {}): AppendRequest => ({
  raw: Buffer.from(`Subject: ${text}\r\n\r\n${text}\r\n`),
  summary: Buffer.from(`summary of ${text}`),
  flags: [],
  internalDateMs: 1_700_000_000_000,
  ...more,
});

describe('an open account', () => {
  let disk: MemoryDisk;
  let store: AccountStore;
  let account: StoredAccount;
  beforeEach(async () => {
    disk = new MemoryDisk();
    store = await storeOn(disk.client());
    account = await store.open(uuid, opening('back1'));
  });

  const reopened = async (): Promise<StoredAccount> => {
    await account.close();
    account = await store.open(uuid, opening('back1'));
    return account;
  };
  const inbox = () => mailboxOf(account, 'INBOX');
  const fill = async (...texts: string[]): Promise<void> =>
    void (await account.append(
      inbox().id,
      texts.map((text) => message(text)),
    ));
  const view = (from: OpenAccount) =>
    from.mailboxes().map((mailbox) => ({
      id: mailbox.id,
      name: mailbox.name,
      uidValidity: mailbox.uidValidity,
      uidNext: mailbox.uidNext,
      highestModseq: mailbox.highestModseq,
      unseen: mailbox.unseenCount,
      bytes: mailbox.sizeBytes,
      subscribed: mailbox.subscribed,
      specialUse: mailbox.specialUse,
      messages: [...mailbox.uids()].map((uid) => mailbox.message(uid)),
      changes: mailbox.changesSince(0),
    }));

  it('begins with INBOX first and the mailboxes that users expect, all subscribed', () => {
    expect(account.mailboxes().map(({ name, specialUse, subscribed }) => [name, specialUse, subscribed])).toEqual([
      ['INBOX', undefined, true],
      ['Archive', '\\Archive', true],
      ['Drafts', '\\Drafts', true],
      ['Junk', '\\Junk', true],
      ['Sent', '\\Sent', true],
      ['Trash', '\\Trash', true],
    ]);
    expect(new Set(account.mailboxes().map((mailbox) => mailbox.uidValidity)).size).toBe(6);
  });

  it('is after closing and opening what it was, in every detail', async () => {
    await fill('one', 'two', 'three', 'four');
    await account.storeFlags(inbox().id, [2, 3], 'add', ['\\Seen', '$Label']);
    await account.copy(inbox().id, [1, 2], mailboxOf(account, 'Sent').id);
    await account.move(inbox().id, [3], mailboxOf(account, 'Trash').id);
    await account.createMailbox('Lists/ümlaut/deep');
    await account.renameMailbox('Lists', 'Mail lists');
    await account.subscribe('nowhere', true);
    await account.expunge(inbox().id, [1], true);
    const before = view(account);
    const quota = account.quota();
    await reopened();
    expect(view(account)).toEqual(before);
    expect(account.quota()).toEqual(quota);
    expect(account.subscriptions()).toContain('nowhere');
  });

  it('gives back the text and the summary of small and large messages', async () => {
    const large = randomBytes(700_000);
    await account.append(inbox().id, [message('small'), message('large', { raw: large })]);
    const expectBoth = async (): Promise<void> => {
      expect((await account.readRaw(inbox().id, 1)).toString()).toBe('Subject: small\r\n\r\nsmall\r\n');
      expect((await account.readRaw(inbox().id, 2)).equals(large)).toBe(true);
      expect((await account.readSummary(inbox().id, 2)).toString()).toBe('summary of large');
    };
    await expectBoth();
    await reopened();
    await expectBoth();
    expect(disk.paths().some((path) => path.includes('/body/f'))).toBe(true);
  });

  it('stores a delivery once, also when it comes twice at the same time and again after reopening', async () => {
    const request = message('once', { deliveryId: 'queue-1.42' });
    const answers = await Promise.all([account.append(inbox().id, [request]), account.append(inbox().id, [request])]);
    expect(answers[0]).toEqual(answers[1]);
    await reopened();
    expect(await account.append(inbox().id, [request])).toEqual(answers[0]);
    expect(inbox().messageCount).toBe(1);
  });

  it('commits together what came together: one slot for many appends', async () => {
    const before = disk.paths().filter((path) => path.includes('/log/')).length;
    await Promise.all(Array.from({ length: 3 }, (_, i) => account.append(inbox().id, [message(`m${i}`)])));
    expect(disk.paths().filter((path) => path.includes('/log/')).length).toBe(before + 1);
    expect([...inbox().uids()]).toEqual([1, 2, 3]);
  });

  it('orders changes of the same messages that come at the same time', async () => {
    await fill('one');
    const [added, replaced, removed] = await Promise.all([
      account.storeFlags(inbox().id, [1], 'add', ['\\Seen']),
      account.storeFlags(inbox().id, [1], 'replace', ['\\Flagged', 'later']),
      account.expunge(inbox().id, [1], true),
    ]);
    expect(added.changed[0]?.flags).toEqual(['\\Seen']);
    expect(replaced.changed[0]?.flags).toEqual(['\\Flagged', 'later']);
    expect(removed).toEqual([1]);
    expect(await account.storeFlags(inbox().id, [1], 'add', ['\\Seen'])).toEqual({ changed: [], modified: [] });
  });

  it('leaves alone what changed since (RFC 7162 §3.1.3) and says which', async () => {
    await fill('one', 'two');
    const modseq = inbox().highestModseq;
    await account.storeFlags(inbox().id, [2], 'add', ['\\Seen']);
    const { changed, modified } = await account.storeFlags(inbox().id, [1, 2], 'add', ['\\Deleted'], modseq);
    expect(changed.map(({ uid }) => uid)).toEqual([1]);
    expect(modified).toEqual([2]);
  });

  it('keeps the first spelling of a keyword and drops \\Recent', async () => {
    await account.append(inbox().id, [message('one', { flags: ['$Work', '\\recent', '\\SEEN', '$work'] })]);
    await account.storeFlags(inbox().id, [1], 'add', ['$WORK', 'new']);
    expect(inbox().message(1)?.flags.toSorted()).toEqual(['$Work', '\\Seen', 'new']);
    expect(inbox().unseenCount).toBe(0);
  });

  it('expunges what is marked, only the named ones of those, or by force', async () => {
    await fill('1', '2', '3', '4', '5');
    await account.storeFlags(inbox().id, [1, 2, 3], 'add', ['\\Deleted']);
    expect(await account.expunge(inbox().id, [3, 4])).toEqual([3]);
    expect(await account.expunge(inbox().id, [5, 99], true)).toEqual([5]);
    expect(await account.expunge(inbox().id)).toEqual([1, 2]);
    expect([...inbox().uids()]).toEqual([4]);
    expect(inbox().changesSince(1).vanished).toEqual([1, 2, 3, 5]);
  });

  it('says that the list of vanished messages is incomplete once it had to forget', async () => {
    for (let round = 0; round < 5; round += 1) {
      await account.append(
        inbox().id,
        Array.from({ length: 1000 }, (_, i) => message(`${round}.${i}`)),
      );
      await account.expunge(inbox().id, [...inbox().uids()], true);
    }
    const modseq = inbox().highestModseq;
    expect(inbox().changesSince(1).isComplete).toBe(false);
    expect(inbox().changesSince(modseq)).toEqual({ changed: [], vanished: [], isComplete: true });
    expect(inbox().changesSince(modseq - 2).vanished.length).toBe(1000);
  });

  it('copies without bytes: the copy is read after the original is gone and its slot has left the log', async () => {
    await fill('kept');
    const sent = mailboxOf(account, 'Sent');
    expect(await account.copy(inbox().id, [1, 7], sent.id)).toEqual([{ sourceUid: 1, uid: 1 }]);
    expect(sent.message(1)?.emailId).toBe(inbox().message(1)?.emailId);
    await account.expunge(inbox().id, [1], true);
    for (let i = 0; i < 20; i += 1) await fill(`more ${i}`);
    await reopened();
    expect((await account.readRaw(sent.id, 1)).toString()).toContain('kept');
    expect((await store.checkAccount(uuid)).findings).toEqual([]);
  });

  it('enforces the quota as it is now, and lets moves through', async () => {
    await fill('one');
    account.setQuota(account.quota().usedBytes + 10);
    expect(await codeOf(account.append(inbox().id, [message('two')]))).toBe('MBOX_OVER_QUOTA');
    expect(await codeOf(account.copy(inbox().id, [1], mailboxOf(account, 'Sent').id))).toBe('MBOX_OVER_QUOTA');
    expect(await account.move(inbox().id, [1], mailboxOf(account, 'Sent').id)).toEqual([{ sourceUid: 1, uid: 1 }]);
    account.setQuota(undefined);
    await fill('two');
    expect(account.quota().messages).toBe(2);
  });

  it('counts appends that come together against one quota', async () => {
    account.setQuota(message('x').raw.length);
    const answers = await Promise.all([
      codeOf(account.append(inbox().id, [message('a')])),
      codeOf(account.append(inbox().id, [message('b')])),
    ]);
    expect(answers).toEqual(['no failure', 'MBOX_OVER_QUOTA']);
  });

  it('tells listeners of every commit, and once that it is closed', async () => {
    const heard: unknown[] = [];
    const stop = account.onChange((change) => heard.push(change));
    account.onChange(() => {
      throw new Error('one session has trouble');
    });
    await fill('one');
    expect(heard).toEqual([{ mailboxIds: [inbox().id], closed: false }]);
    await account.close();
    expect(heard.at(-1)).toEqual({ mailboxIds: [], closed: true });
    stop();
    expect(account.isOpen).toBe(false);
    expect(await codeOf(fill('late'))).toBe('STORE_UNAVAILABLE');
  });

  it('is deposed at its next change when another member opened it, tells so, and has stored nothing', async () => {
    await fill('one');
    const other = await (await storeOn(disk.client(), 9)).open(uuid, opening('back2'));
    const closed: boolean[] = [];
    account.onChange((change) => closed.push(change.closed));
    expect(await codeOf(fill('two'))).toBe('CLUSTER_DEPOSED');
    expect(closed).toEqual([true]);
    expect(account.isOpen).toBe(false);
    expect(other.epoch).toBe(2);
    expect(mailboxOf(other, 'INBOX').messageCount).toBe(1);
  });

  describe('with a disk that fails', () => {
    it('refuses what finds no room and goes on', async () => {
      let isFull = true;
      const files = disk.client(({ name }) => (isFull && name === 'writeNew' ? { kind: 'fails', code: 'ENOSPC' } : undefined));
      isFull = false;
      const held = await (await storeOn(files, 5)).open(uuid, opening('back3'));
      isFull = true;
      expect(await codeOf(held.append(1, [message('one')]))).toBe('STORE_FULL');
      expect(await codeOf(held.append(1, [message('big', { raw: Buffer.from(disk.paths().join(' ').repeat(9000)) })]))).toBe('STORE_FULL');
      isFull = false;
      expect(await held.append(1, [message('two')])).toEqual([{ uidValidity: mailboxOf(held, 'INBOX').uidValidity, uid: 1 }]);
    });

    it('leaves no file behind of a large message that was refused', async () => {
      let refuses: string | undefined;
      const files = disk.client(({ name, path }) =>
        refuses !== undefined && name === 'writeNew' && path.includes(refuses) ? { kind: 'fails', code: 'ENOSPC' } : undefined,
      );
      const held = await (await storeOn(files, 5)).open(uuid, opening('back3'));
      refuses = '/stage/';
      expect(await codeOf(held.append(1, [message('big', { raw: randomBytes(300_000) })]))).toBe('STORE_FULL');
      expect(disk.paths().filter((path) => path.includes('/body/'))).toEqual([]);
    });

    it('closes the account when an outcome is not known, and the next opening finds out', async () => {
      let isFailing = false;
      const files = disk.client(({ name }) => (isFailing && name === 'link' ? { kind: 'happens-but-fails', code: 'EIO' } : undefined));
      const other = await storeOn(files, 5);
      const held = await other.open(uuid, opening('back3'));
      isFailing = true;
      const request = message('one', { deliveryId: 'd' });
      expect(await codeOf(held.append(1, [request]))).toBe('STORE_UNAVAILABLE');
      expect(held.isOpen).toBe(false);
      isFailing = false;
      const again = await other.open(uuid, opening('back3'));
      expect((await again.append(1, [request]))[0]?.uid).toBe(1);
      expect(mailboxOf(again, 'INBOX').messageCount).toBe(1);
    });
  });
});
