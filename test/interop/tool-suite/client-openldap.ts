/** OpenLDAP's command line tools, one process a task, over StartTLS. */
import { run } from '../run-tool.ts';
import { rawControl } from './controls.ts';
import { changeRecord, entriesOf } from './ldif.ts';
import type { Answer, Client, ServerAddress, Step, Task, WantedControl } from './model.ts';

export const openldapTools: Client = {
  name: "OpenLDAP's tools",
  cannot: () => undefined,
  async run(server, tasks) {
    const answers: Answer[] = [];
    for (const task of tasks) answers.push(await runTool(task, ['-x', '-ZZ', '-H', server.url, ...bindOptions(task)], server));
    return answers;
  },
};

/** The same tools over the Unix socket, bound by SASL EXTERNAL as the user that runs them. */
export const openldapToolsOverLdapi: Client = {
  name: "OpenLDAP's tools by EXTERNAL over ldapi",
  cannot: ({ who }) => (who === 'anonymous' || !who[0].startsWith('cn=admin,') ? 'EXTERNAL is the identity of the process' : undefined),
  async run(server, tasks) {
    const answers: Answer[] = [];
    for (const task of tasks) answers.push(await runTool(task, ['-Q', '-Y', 'EXTERNAL', '-H', server.ldapiUrl], server));
    return answers;
  },
};

function bindOptions({ who }: Task): readonly string[] {
  return who === 'anonymous' ? [] : ['-D', who[0], '-w', who[1]];
}

async function runTool(task: Task, connect: readonly string[], server: ServerAddress): Promise<Answer> {
  const { step } = task;
  const general = task.controls.flatMap((control) => generalOption(control, step));
  const { program, args, stdin } = commandLine(task);
  const ran = await run(program, [...connect, ...general, ...args], {
    ...(stdin === undefined ? {} : { stdin }),
    env: { LDAPTLS_CACERT: server.caFile, LDAPCONF: '/dev/null', LC_ALL: 'C.UTF-8' },
  });
  const output = `${ran.stdout}\n${ran.stderr}`;
  const matched = /^\s*matched ?dn: (.+)$/im.exec(output)?.[1];
  // Extended operations end with 1 and print the result code.
  const printed = /\((\d+)\)/.exec(output)?.[1];
  const code = ran.code === 1 && printed !== undefined ? Number(printed) : ran.code;
  const base = { code, text: ran.stderr, ...(matched === undefined ? {} : { matched }) };
  switch (step.op) {
    case 'search':
      return {
        ...base,
        entries: entriesOf(ran.stdout.replaceAll(/^(search|result|matchedDN|text|ref|pagedresults|sortResult): .*\n/gm, '')),
        controls: controlsOf(ran.stdout),
        ...(task.controls.some((one) => one.kind === 'paged')
          ? { pages: [...ran.stdout.matchAll(/^# pagedresults: |^pagedresults: /gm)].length }
          : {}),
      };
    case 'whoami':
      return code === 0 ? { ...base, value: ran.stdout.trim() } : base;
    case 'password':
      return code === 0 ? { ...base, value: /New password: /.test(ran.stdout) ? 'made' : '' } : base;
    default:
      return { ...base, controls: controlsOf(ran.stdout) };
  }
}

function commandLine({ step, controls }: Task): { program: string; args: readonly string[]; stdin?: string } {
  switch (step.op) {
    case 'search':
      return {
        program: 'ldapsearch',
        args: [
          '-L',
          '-o',
          'ldif-wrap=no',
          ...['-b', step.base, '-s', step.scope ?? 'sub'],
          ...(step.typesOnly === true ? ['-A'] : []),
          ...(step.sizeLimit === undefined ? [] : ['-z', String(step.sizeLimit)]),
          ...(step.deref === true ? ['-a', 'always'] : []),
          ...controls.flatMap(searchOption),
          step.filter ?? '(objectClass=*)',
          ...(step.attributes ?? []),
        ],
      };
    case 'add':
      return { program: 'ldapadd', args: [], stdin: changeRecord(step) };
    case 'modify':
      return { program: 'ldapmodify', args: [], stdin: changeRecord(step) };
    case 'rename':
      return {
        program: 'ldapmodrdn',
        args: [
          ...(step.keepOld === true ? [] : ['-r']),
          ...(step.newSuperior === undefined ? [] : ['-s', step.newSuperior]),
          step.dn,
          step.newRdn,
        ],
      };
    case 'delete':
      return { program: 'ldapdelete', args: [step.dn] };
    case 'compare':
      return { program: 'ldapcompare', args: [step.dn, `${step.attribute}::${Buffer.from(step.value).toString('base64')}`] };
    case 'password':
      return {
        program: 'ldappasswd',
        args: [
          ...(step.from === undefined ? [] : ['-a', step.from]),
          ...(step.to === undefined ? [] : ['-s', step.to]),
          ...(step.dn === undefined ? [] : [step.dn]),
        ],
      };
    case 'whoami':
      return { program: 'ldapwhoami', args: [] };
    case 'extended':
      return {
        program: 'ldapexop',
        args: [step.value === undefined ? step.oid : `${step.oid}::${Buffer.from(step.value).toString('base64')}`],
      };
  }
}

// The tools' own spelling, where they have one.
function generalOption(control: WantedControl, step: Step): readonly string[] {
  const mark = control.critical === true ? '!' : '';
  switch (control.kind) {
    case 'assertion':
      return ['-e', `${mark}assert=${control.filter}`];
    case 'preRead':
    case 'postRead':
      return ['-e', `${mark}${control.kind.toLowerCase()}=${control.attributes.join(',')}`];
    case 'manageDsaIt':
      return control.critical === true ? ['-MM'] : ['-M'];
    case 'relax':
      return ['-e', `${mark}relax`];
    case 'proxiedAuthorization':
      return ['-e', `${mark}authzid=${control.identity}`];
    case 'treeDelete':
      return ['-e', `${mark}${rawControl(control).oid}`];
    case 'raw': {
      const { oid, value } = rawControl(control);
      if (step.op === 'search') return ['-E', `${mark}${oid}${value === undefined ? '' : `=::${value}`}`];
      return ['-e', `${mark}${oid}${value === undefined ? '' : `=::${value}`}`];
    }
    default:
      return [];
  }
}

function searchOption(control: WantedControl): readonly string[] {
  const mark = control.critical === true ? '!' : '';
  if (control.kind === 'paged') return ['-E', `${mark}pr=${control.size}/noprompt`];
  if (control.kind === 'sort')
    return ['-E', `${mark}sss=${control.keys.map((key) => `${key.reverse === true ? '-' : ''}${key.attribute}`).join('/')}`];
  return control.kind === 'sync' ? ['-E', '!sync=ro'] : [];
}

// `control: OID criticality base64`, folded as LDIF, with `#` before it from the tools that write.
function controlsOf(output: string): NonNullable<Answer['controls']> {
  return [...output.replaceAll('\n ', '').matchAll(/^(?:# )?control: ([0-9.]+) (?:true|false)(?: ([A-Za-z0-9+/=]+))?$/gm)].map((found) => ({
    oid: found[1] as string,
    ...(found[2] === undefined ? {} : { value: found[2] }),
  }));
}
