import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ArchivedMessage, type ArchivePart, ArchiveReader, ArchiveWriter } from '#protocol/archive/format.ts';
import { MboxDecoder, maildirFlags, maildirFolder } from '#protocol/archive/mbox.ts';
import { TarDecoder, tarEnd, tarFile } from '#protocol/archive/tar.ts';

const head = {
  id: 'a1',
  account: 'alice@isp.example',
  createdAtMs: 1_700_000_000_000,
  mailboxes: [{ number: 1, name: 'INBOX', uidValidity: 7 }],
  subscriptions: ['INBOX'],
};
const message = (uid: number, text: string): ArchivedMessage => ({
  raw: Buffer.from(text),
  flags: ['\\Seen', 'ü'],
  internalDateMs: 1_600_000_000_000 + uid,
  uid,
  modseq: uid + 10,
  emailId: uid.toString(16).padStart(32, '0'),
});

function archive(): Buffer {
  const writer = new ArchiveWriter();
  return Buffer.concat([
    ...writer.head(head),
    ...writer.messages(1, [message(3, 'three'), message(9, '')]),
    ...writer.messages(1, [message(12, 'x'.repeat(1000))]),
    ...writer.end(),
  ]);
}

function partsOf(bytes: Buffer, sizes: readonly number[] = []): ArchivePart[] {
  const [tar, reader] = [new TarDecoder(), new ArchiveReader()];
  const parts: ArchivePart[] = [];
  let at = 0;
  for (let i = 0; at < bytes.length; i += 1) {
    const end = at + (sizes[i % Math.max(1, sizes.length)] ?? bytes.length);
    for (const { name, body } of tar.push(Buffer.from(bytes.subarray(at, end)))) {
      const part = reader.take(name, body);
      if (part !== undefined) parts.push(part);
    }
    at = end;
  }
  return parts;
}

const codeOf = (work: () => unknown): string => {
  try {
    work();
    return 'no failure';
  } catch (error) {
    return error instanceof PlatformError ? error.code : String(error);
  }
};

describe('an archive', () => {
  it('gives back what was put in, however its bytes come', () => {
    const whole = partsOf(archive());
    expect(whole.map(({ kind }) => kind)).toEqual(['head', 'message', 'message', 'message', 'end']);
    expect(whole[0]).toMatchObject({ head: { ...head, format: 'archipelago-account', version: 1 } });
    expect(whole[1]).toEqual({ kind: 'message', mailbox: 1, file: 'mailbox/1/3.eml', message: message(3, 'three') });
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 8 }), (sizes) => {
        expect(partsOf(archive(), sizes)).toEqual(whole);
      }),
      { numRuns: 50 },
    );
  });

  it('is read by tar, and its re-packed form by us', () => {
    const directory = mkdtempSync(join(tmpdir(), 'archipelago-tar-'));
    try {
      writeFileSync(join(directory, 'a.tar'), archive());
      expect(execFileSync('tar', ['tf', 'a.tar'], { cwd: directory, encoding: 'utf8' }).trim().split('\n')).toEqual([
        'archive.json',
        'mailbox/1/1.jsonl',
        'mailbox/1/3.eml',
        'mailbox/1/9.eml',
        'mailbox/1/2.jsonl',
        'mailbox/1/12.eml',
        'end.json',
      ]);
      execFileSync('tar', ['xf', 'a.tar'], { cwd: directory });
      execFileSync(
        'tar',
        [
          'cf',
          'b.tar',
          '--format=pax',
          './archive.json',
          'mailbox/1/1.jsonl',
          'mailbox/1/2.jsonl',
          'mailbox/1/3.eml',
          'mailbox/1/9.eml',
          'mailbox/1/12.eml',
          'end.json',
        ],
        { cwd: directory },
      );
      expect(partsOf(readFileSync(join(directory, 'b.tar')))).toEqual(partsOf(archive()));
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it('that is damaged anywhere is refused, and one that was cut off has no end', () => {
    const bytes = archive();
    expect(partsOf(bytes.subarray(0, bytes.length - 3000)).some(({ kind }) => kind === 'end')).toBe(false);
    const at = bytes.indexOf('three');
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] as number) ^ 1;
    expect(codeOf(() => partsOf(flipped))).toBe('PROTO_SYNTAX');
    const header = Buffer.from(bytes);
    header[10] = 0x41;
    expect(codeOf(() => partsOf(header))).toBe('PROTO_SYNTAX');
    expect(codeOf(() => partsOf(Buffer.alloc(2048, 'no tar file at all ')))).toBe('PROTO_SYNTAX');
  });

  it.each<[string, string, object]>([
    ['another first file', 'x.json', {}],
    ['another format', 'archive.json', { format: 'x', version: 1 }],
    ['a later version', 'archive.json', { format: 'archipelago-account', version: 2, id: 'a', mailboxes: [], subscriptions: [] }],
    ['no mailboxes', 'archive.json', { format: 'archipelago-account', version: 1, id: 'a', subscriptions: [] }],
    ['an id that is a path', 'archive.json', { format: 'archipelago-account', version: 1, id: '../a', mailboxes: [], subscriptions: [] }],
  ])('is refused with %s', (_, name, content) => {
    expect(codeOf(() => new ArchiveReader().take(name, Buffer.from(JSON.stringify(content))))).toBe('PROTO_SYNTAX');
  });

  it('of a hostile size or with a message that no index names is refused', () => {
    const [file] = tarFile('a', Buffer.alloc(0), 0) as [Buffer];
    const huge = Buffer.from(file);
    huge.write('77777777777\0', 124, 'latin1');
    huge.write('        ', 148, 'latin1');
    const sum = huge.reduce((total, byte) => total + byte, 0);
    huge.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    expect(codeOf(() => new TarDecoder().push(huge))).toBe('PROTO_TOO_LONG');
    const writer = new ArchiveWriter();
    const strange = Buffer.concat([...writer.head(head), ...tarFile('mailbox/1/1.eml', Buffer.from('x'), 0), tarEnd]);
    expect(codeOf(() => partsOf(strange))).toBe('PROTO_SYNTAX');
  });
});

describe('an mbox file', () => {
  const file = [
    'From alice@isp.example Thu Nov 24 18:22:48 1986',
    'Subject: one',
    'Status: RO',
    'X-Status: AF',
    '',
    '>From the beginning',
    '>>From deeper',
    'From here on it is text, because no empty line is before it',
    '',
    'From bob@isp.example Fri Nov 25 08:00:00 1986',
    'Subject: two',
    '',
    'text',
    '',
    '',
  ].join('\n');

  it('is taken apart into its messages, however its bytes come', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 80 }), (size) => {
        const decoder = new MboxDecoder();
        const found = [];
        for (let at = 0; at < file.length; at += size) found.push(...decoder.push(Buffer.from(file.slice(at, at + size))));
        found.push(...decoder.end());
        expect(found.map(({ raw }) => raw.toString())).toEqual([
          'Subject: one\nStatus: RO\nX-Status: AF\n\nFrom the beginning\n>From deeper\nFrom here on it is text, because no empty line is before it\n',
          'Subject: two\n\ntext\n',
        ]);
        expect(found[0]).toMatchObject({ flags: ['\\Seen', '\\Answered', '\\Flagged'], dateMs: Date.UTC(1986, 10, 24, 18, 22, 48) });
        expect(found[1]).toMatchObject({ flags: [], dateMs: Date.UTC(1986, 10, 25, 8) });
      }),
      { numRuns: 30 },
    );
  });

  it('is told from other files, and may be empty', () => {
    expect(new MboxDecoder().end()).toEqual([]);
    expect(codeOf(() => new MboxDecoder().push(Buffer.from('Subject: x\n\n')))).toBe('PROTO_SYNTAX');
  });
});

describe('names of a Maildir', () => {
  it('tell flags and folders', () => {
    expect(maildirFlags('1700000000.M1P1.host,S=12:2,FRS')).toEqual(['\\Seen', '\\Answered', '\\Flagged']);
    expect(maildirFlags('1700000000.M1P1.host')).toEqual([]);
    expect(maildirFolder('.Sent.2024')).toBe('Sent/2024');
    expect(maildirFolder('.Entw&APw-rfe')).toBe('Entwürfe');
    expect(maildirFolder('.A &- B')).toBe('A & B');
    expect(maildirFolder('cur')).toBeUndefined();
    expect(maildirFolder('..')).toBeUndefined();
  });
});
