/** ldapvi without its editor: searches by `--ldapsearch`, changes by `--ldapmodify` from a file. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../run-tool.ts';
import { changeRecord, entriesOf } from './ldif.ts';
import type { Answer, Client, ServerAddress, Task } from './model.ts';

export const ldapvi: Client = {
  name: 'ldapvi',
  cannot({ step, controls }) {
    if (controls.some((one) => one.kind !== 'manageDsaIt')) return 'it knows no such control';
    if (!['search', 'add', 'modify', 'rename', 'delete'].includes(step.op)) return 'it knows no such operation';
    if (step.op === 'search' && (step.typesOnly === true || step.sizeLimit !== undefined)) return 'it has no such option';
    if (step.op === 'modify' && step.changes.some((change) => change.kind === 'increment')) return 'it knows no increment';
    if (step.op === 'rename' && step.newSuperior !== undefined) return 'its change records name no new superior';
    if ('dn' in step && !(step.dn ?? '').includes('=')) return 'it checks names itself';
    if (step.op === 'rename' && !step.newRdn.includes('=')) return 'it checks names itself';
    return undefined;
  },
  async run(server, tasks) {
    const folder = await mkdtemp(join(tmpdir(), 'archipelago-ldapvi-'));
    try {
      const answers: Answer[] = [];
      for (const task of tasks) answers.push(await runLdapvi(task, server, folder));
      return answers;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

/** What a failed search is told by; a failed write has the number. */
const texts: Readonly<Record<string, number>> = {
  'No such object': 32,
  'Invalid DN syntax': 34,
  'Insufficient access': 50,
  'Invalid credentials': 49,
};

async function runLdapvi({ step, who, controls }: Task, server: ServerAddress, folder: string): Promise<Answer> {
  const connect = [
    ...['--host', server.url, '--starttls', '--tls', 'strict', '--bind', 'simple', '--bind-dialog', 'never'],
    ...(who === 'anonymous' ? [] : ['--user', who[0], '--password', who[1]]),
    ...(controls.length > 0 ? ['--managedsait'] : []),
  ];
  const env = { LDAPTLS_CACERT: server.caFile, LDAPCONF: '/dev/null', HOME: folder, LC_ALL: 'C.UTF-8', TERM: 'dumb' };
  if (step.op !== 'search') {
    const file = join(folder, 'change.ldif');
    const record = changeRecord(step as Parameters<typeof changeRecord>[0]);
    // New entries are for `--add`, without a changetype.
    await writeFile(file, record.replace('changetype: add\n', ''));
    const { code, stderr } = await run('ldapvi', [...connect, '--ldapmodify', ...(step.op === 'add' ? ['--add'] : []), file], { env });
    const refused = /\((\d+)\)/.exec(stderr)?.[1];
    if (code === 0) return { code };
    const matched = /matched DN: (.+)/.exec(stderr)?.[1];
    return { code: refused === undefined ? -1 : Number(refused), text: stderr, ...(matched === undefined ? {} : { matched }) };
  }
  const where = ['--base', step.base, '--scope', step.scope ?? 'sub', '--deref', step.deref === true ? 'always' : 'never'];
  const args = [...connect, '--ldapsearch', ...where, step.filter ?? '(objectClass=*)', ...(step.attributes ?? [])];
  const ran = await run('ldapvi', args, { env });
  const said = /(?:failed|ldap_\w+): ([A-Za-z ]+)/.exec(ran.stderr)?.[1]?.trim();
  return {
    code: ran.code === 0 ? 0 : (texts[said ?? ''] ?? -1),
    text: ran.stderr,
    entries: ran.code === 0 ? entriesOf(ran.stdout) : [],
  };
}
