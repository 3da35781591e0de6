/**
 * Reads a shared route index while another process changes it: `node shared-index-process.ts FACTS ROUNDS STEADY`, with the memory at descriptor 4.
 *
 * `user0` … are in the index all the time, those with even numbers at the first cluster; `gone0` … never are. Prints what it found, as JSON.
 */
import { parseAccountName } from '#common/account-name.ts';
import { SharedIndexReader } from '#frontend/routing/shared-index.ts';

const [facts = '', rounds = '', steady = ''] = process.argv.slice(2);
const { bytes, clusters, key } = JSON.parse(facts);
const reader = SharedIndexReader.open(4, bytes, { clusters, key });
const counts = { right: 0, wrong: 0, missed: 0, unsure: 0 };
process.stdout.write('reads\n');
for (let i = 0; i < Number(rounds); i += 1) {
  const number = i % Number(steady);
  const isThere = i % 5 !== 0;
  const found = reader?.find(parseAccountName(`${isThere ? 'user' : 'gone'}${number}@isp.example`)) ?? undefined;
  if (found === 'unsure') counts.unsure += 1;
  else if (found === undefined) counts[isThere ? 'missed' : 'right'] += 1;
  else counts[isThere && found.cluster === clusters[number % 2] ? 'right' : 'wrong'] += 1;
}
process.stdout.write(`${JSON.stringify(counts)}\n`);
