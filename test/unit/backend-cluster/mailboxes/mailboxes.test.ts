import { beforeEach, describe, expect, it } from 'vitest';
import { parseFlags } from '#backend-cluster/mailboxes/flags.ts';
import { parseMailboxName } from '#backend-cluster/mailboxes/mailbox-names.ts';
import type { StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';
import { mailboxOf, opening, storeOn, uuid } from '../storage/ledger.ts';

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'no failure',
    (error: unknown) => (error instanceof PlatformError ? error.code : String(error)),
  );

describe('names of mailboxes', () => {
  it.each([
    ['inbox', 'INBOX'],
    ['InBox/Sub', 'INBOX/Sub'],
    ['Inboxes', 'Inboxes'],
    ['u\u0308ber', 'über'],
    ['a b/"c"/*%', 'a b/"c"/*%'],
  ])('takes %j as %j', (given, stored) => {
    expect(parseMailboxName(given)).toBe(stored);
  });

  it.each([
    '',
    '/',
    '/a',
    'a/',
    'a//b',
    'a\u0000b',
    'a\r\nb',
    'a\u007f',
    '\ud800',
    'x'.repeat(1001),
    'ü'.repeat(501),
    'a/'.repeat(64).concat('a'),
  ])('refuses %j', (name) => {
    expect(() => parseMailboxName(name)).toThrow(expect.objectContaining({ code: 'MBOX_NAME_INVALID' }));
  });
});

describe('flags', () => {
  it.each([[['\\Unknown']], [['two words']], [['paren(']], [['']], [['quo"te']], [['st*r']]])('refuses %j', (flags) => {
    expect(() => parseFlags(flags)).toThrow(expect.objectContaining({ code: 'PROTO_SYNTAX' }));
  });

  it('limits their number and length', () => {
    expect(() => parseFlags(Array.from({ length: 65 }, (_, i) => `k${i}`))).toThrow(expect.objectContaining({ code: 'MBOX_LIMIT' }));
    expect(() => parseFlags(['k'.repeat(101)])).toThrow(expect.objectContaining({ code: 'MBOX_LIMIT' }));
    expect(parseFlags(['\\seen', 'a', 'A'])).toEqual(['\\Seen', 'a']);
  });
});

describe('mailboxes of an account', () => {
  let account: StoredAccount;
  const names = (): string[] => account.mailboxes().map((mailbox) => mailbox.name);
  beforeEach(async () => {
    account = await (await storeOn(new MemoryDisk().client())).open(uuid, opening('back1'));
  });

  it('are made with those above them', async () => {
    const made = await account.createMailbox('a/b/c', '\\archive');
    expect(made).toMatchObject({ name: 'a/b/c', specialUse: '\\Archive', uidNext: 1, messageCount: 0, highestModseq: 1 });
    expect(names()).toEqual(expect.arrayContaining(['a', 'a/b', 'a/b/c']));
    expect(await codeOf(account.createMailbox('a/b'))).toBe('MBOX_EXISTS');
    expect(await codeOf(account.createMailbox('iNbOx'))).toBe('MBOX_EXISTS');
    expect(await codeOf(account.createMailbox('x', '\\Nonsense'))).toBe('MBOX_NAME_INVALID');
  });

  it('are made once when two clients ask at the same time', async () => {
    expect((await Promise.all([codeOf(account.createMailbox('same')), codeOf(account.createMailbox('same'))])).sort()).toEqual([
      'MBOX_EXISTS',
      'no failure',
    ]);
  });

  it('are deleted without those below them; INBOX is not', async () => {
    await account.createMailbox('a/b');
    await account.deleteMailbox('a');
    expect(names()).toContain('a/b');
    expect(names()).not.toContain('a');
    expect(await codeOf(account.deleteMailbox('a'))).toBe('MBOX_NOT_FOUND');
    expect(await codeOf(account.deleteMailbox('inbox'))).toBe('MBOX_NAME_INVALID');
  });

  it('have another id and UIDVALIDITY when made again under an old name', async () => {
    const first = await account.createMailbox('again');
    await account.deleteMailbox('again');
    const second = await account.createMailbox('again');
    expect(second.id).toBeGreaterThan(first.id);
    expect(second.uidValidity).toBeGreaterThan(first.uidValidity);
  });

  it('are renamed with those below them, keeping id, UIDVALIDITY and messages', async () => {
    const below = await account.createMailbox('a/b');
    await account.append(below.id, [{ raw: Buffer.from('x\r\n'), summary: Buffer.from(''), flags: [], internalDateMs: 0 }]);
    await account.renameMailbox('a', 'new/place');
    expect(names()).toEqual(expect.arrayContaining(['new', 'new/place', 'new/place/b']));
    expect(names()).not.toContain('a/b');
    expect(mailboxOf(account, 'new/place/b')).toMatchObject({ id: below.id, uidValidity: below.uidValidity, messageCount: 1 });
  });

  it('are not renamed onto another, below themselves, or to a name too long for those below', async () => {
    await account.createMailbox(`a/${'y'.repeat(900)}`);
    expect(await codeOf(account.renameMailbox('a', 'Sent'))).toBe('MBOX_EXISTS');
    expect(await codeOf(account.renameMailbox('a', 'a/below'))).toBe('MBOX_NAME_INVALID');
    expect(await codeOf(account.renameMailbox('a', 'z'.repeat(200)))).toBe('MBOX_NAME_INVALID');
    expect(await codeOf(account.renameMailbox('none', 'some'))).toBe('MBOX_NOT_FOUND');
    expect(names()).toContain(`a/${'y'.repeat(900)}`);
  });

  it('give their messages away when INBOX is renamed (RFC 9051 §6.3.6)', async () => {
    const inbox = mailboxOf(account, 'INBOX');
    const summary = Buffer.from('');
    await account.append(
      inbox.id,
      ['a', 'b'].map((text) => ({ raw: Buffer.from(text), summary, flags: ['\\Seen'], internalDateMs: 0 })),
    );
    await account.renameMailbox('INBOX', 'old/mail');
    expect(mailboxOf(account, 'INBOX')).toMatchObject({ id: inbox.id, messageCount: 0, uidNext: 3 });
    const old = mailboxOf(account, 'old/mail');
    expect([...old.uids()]).toEqual([1, 2]);
    expect((await account.readRaw(old.id, 2)).toString()).toBe('b');
  });

  it('are subscribed by name, whether they exist or not', async () => {
    await account.subscribe('ghost', true);
    await account.subscribe('Sent', false);
    expect(account.subscriptions()).toEqual(['Archive', 'Drafts', 'INBOX', 'Junk', 'Trash', 'ghost']);
    expect(mailboxOf(account, 'Sent').subscribed).toBe(false);
  });

  it('that are gone refuse what was on its way', async () => {
    const made = await account.createMailbox('short-lived');
    const request = { raw: Buffer.from('x'), summary: Buffer.from(''), flags: [], internalDateMs: 0 };
    const [, answer] = await Promise.all([account.deleteMailbox('short-lived'), codeOf(account.append(made.id, [request]))]);
    expect(answer).toBe('MBOX_NOT_FOUND');
  });
});
