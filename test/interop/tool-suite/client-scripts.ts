/** Clients in other languages: one process does all tasks, told and answering in JSON. */
import { execFile } from 'node:child_process';
import { rawControl } from './controls.ts';
import type { Answer, Client, ServerAddress, Task } from './model.ts';
import { adminDn, adminPassword } from './servers.ts';

// Debian's own Python: its python3-ldap3 and python3-ldap are not seen by another one on the path.
const python = '/usr/bin/python3';
const tasksMs = 60_000;

export const ldap3: Client = {
  name: "Python's ldap3",
  cannot: ({ step, controls }) => (step.op === 'whoami' && controls.length > 0 ? 'its who_am_i takes no controls' : undefined),
  run: async (server, tasks) => (await runScript(python, 'client_ldap3.py', server, tasks)).answers,
};

export const pythonLdap: Client = {
  name: 'python-ldap',
  cannot: () => undefined,
  run: async (server, tasks) => (await runScript(python, 'client_python_ldap.py', server, tasks)).answers,
};

export const php: Client = {
  name: "PHP's ldap functions",
  cannot({ step, controls }) {
    if (step.op === 'modify' && step.changes.some((change) => change.kind === 'increment')) return 'ldap_modify_batch knows no increment';
    if (step.op === 'modify' && step.changes.some((change) => change.kind === 'add' && change.values.length === 0))
      return 'it sends no empty add';
    if (step.op === 'modify' && step.changes.some((change) => change.kind === 'replace' && change.values.length === 0))
      return 'it knows no replacing by nothing';
    if (step.op === 'whoami' && controls.length > 0) return 'its whoami takes no controls';
    if (step.op === 'rename' && step.newRdn === '') return 'it refuses an empty name itself';
    return undefined;
  },
  run: async (server, tasks) => (await runScript('php', 'client_php.php', server, tasks)).answers,
};

/** What a script may find out besides. */
export interface ScriptReport {
  readonly answers: Answer[];
  readonly schema: unknown;
  readonly followed: unknown;
}

/** Runs one of the scripts. */
export function runScript(
  program: string,
  script: 'client_ldap3.py' | 'client_python_ldap.py' | 'client_php.php',
  server: ServerAddress,
  tasks: readonly Task[],
  more: { readonly schema?: boolean; readonly followBase?: string } = {},
): Promise<ScriptReport> {
  const job = {
    ...server,
    admin: [adminDn, adminPassword],
    tasks: tasks.map((task) => ({ ...task, raw: task.controls.map(rawControl) })),
    ...more,
  };
  const file = new URL(script, import.meta.url).pathname;
  return new Promise((resolve, reject) => {
    const child = execFile(program, [file], { timeout: tasksMs, maxBuffer: 16_777_216 }, (error, stdout, stderr) => {
      if (error !== null) return reject(new Error(`${script}: ${error.message}\n${stderr}`));
      try {
        resolve(JSON.parse(stdout) as ScriptReport);
      } catch {
        reject(new Error(`${script} printed what is no JSON: ${stdout.slice(0, 2000)}\n${stderr}`));
      }
    });
    child.stdin?.end(JSON.stringify(job));
  });
}
