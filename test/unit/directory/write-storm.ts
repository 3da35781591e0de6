/**
 * A process for kill-safety.test.ts: writes entries without end, several a turn, and prints the number of each one that was acknowledged.
 */
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { attribute } from '#protocol/ldap/messages.ts';

const store = new EntryStore(process.argv[2] as string, {
  keysOf: (attributes) => attributes.flatMap(({ type, values }) => values.map((value) => ({ attribute: type, value: value.toString() }))),
  talliesOf: () => [],
});
let next = 1;
const lane = async (): Promise<never> => {
  for (;;) {
    const n = next;
    next += 1;
    await store.write(() =>
      store.add({
        parentId: rootId,
        rdn: `cn=${n}`,
        rdnNorm: `cn=${n}`,
        uuid: `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`,
        csn: String(n),
        attributes: [attribute('cn', String(n))],
      }),
    );
    process.stdout.write(`${n}\n`);
  }
};
await Promise.all(Array.from({ length: 16 }, lane));
