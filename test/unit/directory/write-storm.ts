/**
 * A process for kill-safety.test.ts: `write-storm.ts PATH FIRST` adds entries without end, numbered from FIRST, several a turn, changes every third
 * of them, and prints the number of each one that was acknowledged.
 */
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { attribute } from '#protocol/ldap/messages.ts';

const store = new EntryStore(process.argv[2] as string, {
  keysOf: (attributes) => attributes.flatMap(({ type, values }) => values.map((value) => ({ attribute: type, value: value.toString() }))),
  talliesOf: () => ['written'],
});
let next = Number(process.argv[3]);
const lane = async (): Promise<never> => {
  for (;;) {
    const n = next;
    next += 1;
    const added = await store.write(() =>
      store.add({
        parentId: rootId,
        rdn: `cn=${n}`,
        rdnNorm: `cn=${n}`,
        uuid: `${String((n * 7919) % 100_000_000).padStart(8, '0')}-0000-4000-8000-${String(n).padStart(12, '0')}`,
        csn: String(n),
        attributes: [attribute('cn', String(n))],
      }),
    );
    if (n % 3 === 0) {
      await store.write(() =>
        store.replace('modify', added, { ...added, attributes: [attribute('cn', String(n)), attribute('sn', 'changed')] }),
      );
    }
    process.stdout.write(`${n}\n`);
  }
};
await Promise.all(Array.from({ length: 16 }, lane));
