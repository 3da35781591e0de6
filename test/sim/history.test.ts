/** The checker of histories can fail: each promise is broken once, and it says which. */
import { beforeEach, describe, expect, it } from 'vitest';
import { AccountHistory, type FinalMailbox } from './history.ts';

let history: AccountHistory;
beforeEach(() => {
  history = new AccountHistory({ name: 'ada@isp.example' });
});

function mailbox(name: string, messages: Record<number, string>, fields: Partial<FinalMailbox> = {}): FinalMailbox {
  const found = Object.entries(messages).map(([uid, id]) => ({ uid: Number(uid), id, flags: ['k1'] }));
  return { mailbox: name, uidValidity: 7, uidNext: 10, highestModseq: 20, messages: found, ...fields };
}

function acknowledged(id: string) {
  const sent = history.send(id);
  sent.isAcknowledged = true;
  return sent;
}

describe('an account that keeps its promises', () => {
  it('passes, also where an answer never came', () => {
    acknowledged('a').keywords.add('k1');
    history.send('unanswered and stored');
    history.send('unanswered and not stored');
    acknowledged('moved').move = 'done';
    acknowledged('perhaps moved').move = 'asked';
    acknowledged('removed').removal = 'done';
    acknowledged('perhaps removed').removal = 'asked';
    history.saw(mailbox('INBOX', { 1: 'a' }, { uidNext: 2, highestModseq: 3 }));
    history.check([
      mailbox('INBOX', { 1: 'a', 2: 'unanswered and stored', 5: 'perhaps removed' }),
      mailbox('Archive', { 1: 'moved', 2: 'perhaps moved' }),
    ]);
    expect(history.violations).toEqual([]);
  });
});

describe('an account that breaks a promise', () => {
  const cases: [string, RegExp, () => FinalMailbox[]][] = [
    [
      'lost mail',
      /^I3: a was acknowledged and is lost/,
      () => {
        acknowledged('a');
        return [mailbox('INBOX', {})];
      },
    ],
    [
      'mail that is there twice',
      /^I4: a is stored 2 times: INBOX, Archive/,
      () => {
        acknowledged('a').move = 'asked';
        return [mailbox('INBOX', { 1: 'a' }), mailbox('Archive', { 1: 'a' })];
      },
    ],
    ['mail that nobody sent', /^I4: b was never sent/, () => [mailbox('INBOX', { 1: 'b' })]],
    [
      'removed mail that is there again',
      /^I5: a was removed and is there again/,
      () => {
        acknowledged('a').removal = 'done';
        return [mailbox('INBOX', { 1: 'a' })];
      },
    ],
    [
      'a move that was undone',
      /^I3: a is in INBOX, its move: done/,
      () => {
        acknowledged('a').move = 'done';
        return [mailbox('INBOX', { 1: 'a' })];
      },
    ],
    [
      'a flag that was lost',
      /^I3: a was acknowledged to have k2/,
      () => {
        acknowledged('a').keywords.add('k2');
        return [mailbox('INBOX', { 1: 'a' })];
      },
    ],
    [
      'a UID that named another message before',
      /^I5: UID 1 of INBOX was a and is b/,
      () => {
        history.send('a');
        acknowledged('b');
        history.saw(mailbox('INBOX', { 1: 'a' }));
        return [mailbox('INBOX', { 1: 'b' })];
      },
    ],
    [
      'UIDNEXT that went back',
      /^I5: UIDNEXT of INBOX went from 10 back to 4/,
      () => {
        history.saw(mailbox('INBOX', {}));
        return [mailbox('INBOX', {}, { uidNext: 4 })];
      },
    ],
    [
      'MODSEQ that went back',
      /^I5: MODSEQ of INBOX went from 20 back to 4/,
      () => {
        history.saw(mailbox('INBOX', {}));
        return [mailbox('INBOX', {}, { highestModseq: 4 })];
      },
    ],
    [
      'another UIDVALIDITY',
      /^I5: UIDVALIDITY of INBOX was 7 and is 8/,
      () => {
        history.saw(mailbox('INBOX', {}));
        return [mailbox('INBOX', {}, { uidValidity: 8 })];
      },
    ],
  ];

  it.each(cases)('is found out: %s', (_, pattern, final) => {
    history.check(final());
    expect(history.violations.filter((violation) => pattern.test(violation))).toHaveLength(1);
  });

  it('is found out: a client that was shown what was true long ago', () => {
    acknowledged('a').acknowledgedAtMs = 1_000;
    history.checkFreshness(5_000, new Set());
    expect(history.violations).toEqual([]);
    history.checkFreshness(60_000, new Set(['a']));
    expect(history.violations).toEqual([]);
    history.checkFreshness(60_000, new Set());
    expect(history.violations).toEqual([expect.stringMatching(/^I9: a was acknowledged 59000 ms before/)]);
  });
});
