import { expect, test, vi } from 'vitest';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { decodeBody } from '#directory/store/entry-body.ts';
import { PlainRecords } from '#directory/tools/plain-records.ts';
import { createPrepareBlock } from '#directory/tools/prepare-block.ts';
import { type PreparedBatch, readBatch } from '#directory/tools/prepared-batch.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

/** Preparers with the same clock and chances, as what they give out themselves must be comparable. */
function prepareWith(block: string): Promise<PreparedBatch> {
  const random = seededRandom(1);
  const prepare = createPrepareBlock({ clock: new FakeClock(), random, hasher: createPasswordHasher(random) });
  return prepare(Buffer.from(block));
}

function shownOf(batch: PreparedBatch, line: number) {
  const entries = [...readBatch(batch)].map((entry) => {
    const keys: string[] = [];
    for (let i = 0; i < entry.keys.length; i += 2) keys.push(`${entry.keys[i]}=${entry.keys[i + 1]}`);
    return {
      ...entry,
      line: entry.line + line,
      // Those that a record lacks come from chance and clock.
      uuid: entry.uuid.toString('hex').startsWith('6f7f6a10') ? entry.uuid.toString('hex') : 'made',
      csn: entry.csn.startsWith('20260606') ? entry.csn : 'made',
      body: decodeBody(Buffer.from(entry.body)).map(({ type, values }) => [type, ...values.map((value) => value.toString('latin1'))]),
      keys: keys.sort(),
      tallies: [...entry.tallies].sort(),
    };
  });
  return { entries, mistakes: batch.mistakes.map((mistake) => ({ ...mistake, line: mistake.line + line })) };
}

/** All records in one block, and each in one of its own, where nothing is known of the one before. */
async function expectSame(records: readonly string[], hasOneFaultEach = true): Promise<void> {
  const together = await prepareWith(records.join('\n'));
  const shown = shownOf(together, 0);
  const apart: ReturnType<typeof shownOf> = { entries: [], mistakes: [] };
  let line = 0;
  for (const record of records) {
    const one = shownOf(await prepareWith(record), line);
    apart.entries.push(...one.entries);
    apart.mistakes.push(...one.mistakes);
    line += record.split('\n').length;
  }
  expect(shown.entries).toEqual(apart.entries);
  // Which of two faults of one record is told is left open.
  const told = ({ line, detail }: { line: number; detail: string }) => (hasOneFaultEach ? `${line}: ${detail}` : line);
  expect(shown.mistakes.map(told)).toEqual(apart.mistakes.map(told));
}

const uuid = (n: number): string => `6f7f6a10-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;

/** An account as an export has it; `lines` come instead of those of the same attribute, or besides. */
function account(n: number, change: (lines: string[]) => string[] = (lines) => lines): string {
  const lines = [
    `dn: uid=user${n},cn=isp.example,o=mail`,
    'objectClass: inetOrgPerson',
    'objectClass: mailAccount',
    `uid: user${n}`,
    `cn: User Number ${n}`,
    `sn: N${n}`,
    `mail: user${n}@isp.example`,
    `mailAlternateAddress: first.${n}@isp.example`,
    `mailAlternateAddress: second.${n}@other.example`,
    `hostServer: ${n % 2 === 0 ? 'east' : 'west'}.isp.example`,
    'accountStatus: active',
    `mailQuota: ${n * 1000}`,
    `userPassword: {SSHA}${'x'.repeat(20)}${n}`,
    `entryUUID: ${uuid(n)}`,
    `entryCSN: 20260606000000.${String(n).padStart(6, '0')}Z#000000#000#000000`,
    'createTimestamp: 20260101000000Z',
    `modifyTimestamp: ${n % 3 === 0 ? '20260101000000Z' : '20260202000000Z'}`,
    'creatorsName: cn=admin,ou=services,o=mail',
    'modifiersName: cn=admin,ou=services,o=mail',
    'structuralObjectClass: inetOrgPerson',
  ];
  return `${change(lines).join('\n')}\n`;
}

const replaced =
  (name: string, ...by: string[]) =>
  (lines: string[]) => {
    const at = lines.findIndex((line) => line.startsWith(`${name}: `));
    return [...lines.slice(0, at), ...by, ...lines.slice(at + 1)];
  };

/** What may be different about a record, the wrong and the unusual. */
const oddities: readonly ((lines: string[], n: number) => string[])[] = [
  (lines, n) => lines.map((line) => line.replace(`user${n}`, `USER${n}`)),
  (lines, n) => replaced('uid', `uid: other${n}`)(lines),
  (lines, n) => replaced('uid', `uid: User${n}`)(lines),
  replaced('cn', 'cn: two  spaces'),
  replaced('cn', 'cn: a space behind '),
  replaced('cn', 'cn:  a space before'),
  replaced('cn', 'cn: with\ta tab'),
  replaced('cn', 'cn: folded', ' here'),
  replaced('cn', 'cn:: w7xiZXI='),
  replaced('cn', 'cn: '),
  replaced('cn', 'cn: one', 'cn: two'),
  replaced('cn', 'cn: one', 'cn: ONE'),
  replaced('cn', `cn: ${'long '.repeat(60)}end`),
  replaced('cn', '# a comment', 'cn: commented'),
  replaced('cn'),
  replaced('sn', 'sn: plain', 'color: red'),
  replaced('sn', 'sn: plain', 'displayName: Shown'),
  replaced('sn', 'SN: other spelling'),
  replaced('sn', 'sn;lang-de: with an option'),
  replaced('mail', 'mail: no address'),
  replaced('mail', 'mail: @isp.example'),
  replaced('mail', 'mail: .dot@isp.example'),
  replaced('mail', 'mail: two..dots@isp.example'),
  replaced('mail', 'mail: dot.@isp.example'),
  replaced('mail', 'mail: Upper.Case@ISP.example'),
  replaced('mail', 'mail: trailing@isp.example.'),
  replaced('mail', 'mail: two@at@isp.example'),
  replaced('mail', `mail: ${'x'.repeat(65)}@isp.example`),
  replaced('mail', 'mail: number@1.2.3.4'),
  replaced('mail', 'mail: (bad)@isp.example'),
  replaced('mailAlternateAddress', 'mailAlternateAddress: bad address'),
  replaced('mailAlternateAddress'),
  replaced('hostServer', 'hostServer: East.ISP.example'),
  replaced('hostServer', 'hostServer: east', 'hostServer: west'),
  replaced('hostServer'),
  replaced('accountStatus', 'accountStatus: locked'),
  replaced('accountStatus', 'accountStatus: broken'),
  replaced('mailQuota', 'mailQuota: -1'),
  replaced('mailQuota', 'mailQuota: much'),
  replaced('mailQuota', 'mailQuota: 007'),
  replaced('entryUUID', `entryUUID: ${uuid(0xabc).toUpperCase()}`),
  replaced('entryUUID', 'entryUUID: 6f7f6a10-0000-4000-8000-00000000000g'),
  replaced('entryUUID', 'entryUUID: short'),
  replaced('entryUUID'),
  replaced('entryCSN', 'entryCSN: 20260606000000Z#000000#00#000000'),
  replaced('entryCSN', 'entryCSN: 20260606000000.000000Z#00000G#000#000000'),
  replaced('entryCSN', 'entryCSN: 20260606000000.000000Z#abcdef#fff#00000a'),
  replaced('entryCSN'),
  replaced('createTimestamp', 'createTimestamp: yesterday'),
  replaced('createTimestamp'),
  replaced('creatorsName', 'creatorsName: no name'),
  replaced('objectClass', 'objectClass: person'),
  replaced('objectClass', 'objectClass: device'),
  (lines) => lines.map((line) => `${line}\r`),
  (lines) => lines.slice(0, 3),
  (lines) => [...lines.slice(0, 1), 'changetype: add', ...lines.slice(1)],
  (lines) => [...lines.slice(0, 1), 'changetype: delete'],
  (lines) => [...lines, 'description: one more line'],
  (lines) => [...lines, ' folded'],
  (lines) => lines.map((line) => line.replace(',cn=isp', ', cn=isp')),
  (lines) => lines.map((line) => line.replace(',cn=isp.example', ',cn=other.example')),
  (lines, n) => lines.map((line) => line.replace(`uid=user${n}`, `uid=us\\65r${n}`)),
  (lines, n) => lines.map((line) => line.replace(`uid=user${n}`, `UID=user${n}`)),
  (lines, n) => lines.map((line) => line.replace(`uid=user${n}`, `cn=User Number ${n}`)),
  (lines, n) => lines.map((line) => line.replace(`uid=user${n}`, `uid=user${n}+sn=N${n}`)),
  (lines) => lines.map((line) => line.replace('dn: ', 'dn:')),
  (lines) => lines.filter((line) => !/Timestamp|Name: |structural|entry/.test(line)),
  (lines) => lines.filter((line) => !line.includes('mailAccount') && !/^(mail|host|account)/.test(line)),
];

test('a record like the one before it becomes what it becomes alone, whatever is odd about it or about the one before', async () => {
  const taken = vi.spyOn(PlainRecords.prototype, 'take');
  for (const [at, oddity] of oddities.entries()) {
    const odd = (n: number): string => account(n, (lines) => oddity(lines, n));
    // Alone among plain ones, twice in a row, and as the first.
    const records = [account(1), account(2), odd(3), account(4), account(5), odd(6), odd(7), odd(8), account(9), account(10)];
    await expectSame(records).catch((error: unknown) => {
      throw new Error(`oddity ${at}: ${oddity}`, { cause: error });
    });
    await expectSame([odd(1), odd(2), account(3), odd(4), odd(5)]);
  }
  // All this is about something: of the fifteen records for each some that are plain stand behind one that is.
  expect(taken.mock.results.filter(({ value }) => value > 0).length).toBeGreaterThan(oddities.length * 2);
  taken.mockRestore();
});

test('records of one form after the other, and two oddities at a time, make no difference either', async () => {
  let state = 99;
  const next = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * below);
  };
  for (let round = 0; round < 20; round += 1) {
    const records = Array.from({ length: 30 }, (_, i) => {
      const n = round * 100 + i;
      if (next(3) > 0) return account(n);
      const [one, other] = [oddities[next(oddities.length)], oddities[next(oddities.length)]];
      return account(n, (lines) => other?.(one?.(lines, n) ?? lines, n) ?? lines);
    });
    await expectSame(records, false);
  }
});

test('domains, clusters and containers are taken the same way, and a file may end without an empty line', async () => {
  const units = [1, 2, 3].map((n) => `dn: ou=unit${n},o=mail\nobjectClass: organizationalUnit\nou: unit${n}\n`);
  const domains = [1, 2, 3].map(
    (n) => `dn: cn=d${n}.example,o=mail\nobjectClass: mailDomain\ncn: d${n}.example\nmailDomainAlias: a${n}.example\n`,
  );
  const clusters = [1, 2].map((n) => `dn: cn=c${n}.example,ou=clusters,o=mail\nobjectClass: mailCluster\ncn: c${n}.example\n`);
  await expectSame([...units, ...domains, ...clusters]);
  await expectSame([account(1), account(2), account(3).trimEnd()]);
  await expectSame([account(1), account(2), account(3)]);
});

test('nothing of a block is taken for what stood in another', async () => {
  const random = seededRandom(1);
  const prepare = createPrepareBlock({ clock: new FakeClock(), random, hasher: createPasswordHasher(random) });
  const blocks = [
    [account(1), account(2)],
    [account(3), account(4)],
    [account(5, (lines) => replaced('userPassword', 'userPassword: in clear')(lines)), account(6)],
    [account(7), account(8, (lines) => replaced('hostServer', 'hostServer: East.isp.example')(lines)), account(9)],
  ];
  // All at a time, so that one waits for its hash while others are read.
  const batches = await Promise.all(blocks.map((records) => prepare(Buffer.from(records.join('\n')))));
  expect(
    batches.flatMap((batch) => [...readBatch(batch)]).map(({ rdn, csn, addresses }) => [rdn, csn.slice(15, 21), addresses[0]]),
  ).toEqual(Array.from({ length: 9 }, (_, i) => [`uid=user${i + 1}`, String(i + 1).padStart(6, '0'), `user${i + 1}@isp.example`]));
  expect(batches.flatMap(({ mistakes }) => mistakes)).toEqual([]);
});
