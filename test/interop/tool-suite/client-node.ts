/** The two LDAP clients for Node that provisioning systems are written with. */
import { readFile } from 'node:fs/promises';
import ldapjs from 'ldapjs';
import { Attribute, Client as Ldapts, Change as LdaptsChange } from 'ldapts';
import type { Answer, Client, SeenEntry, Step, Task } from './model.ts';

const whoAmIOid = '1.3.6.1.4.1.4203.1.11.3';

export const ldaptsClient: Client = {
  name: 'ldapts',
  cannot({ step, controls }) {
    if (controls.some((one) => one.kind !== 'paged')) return 'controls of its own making are left to the others';
    if (step.op === 'rename' && step.keepOld === true) return 'it always deletes the old name';
    if (step.op === 'modify' && step.changes.some((change) => change.kind === 'increment')) return 'it knows no increment';
    if (step.op === 'password') return 'it knows no password modify';
    if (step.op === 'search' && step.sizeLimit !== undefined) return 'it takes the size limit for success';
    return undefined;
  },
  async run(server, tasks) {
    const ca = [await readFile(server.caFile)];
    const clients = new Map<string, Ldapts>();
    const answers: Answer[] = [];
    for (const task of tasks) {
      const key = JSON.stringify(task.who);
      try {
        let client = clients.get(key);
        if (client === undefined) {
          client = new Ldapts({ url: server.url, timeout: 20_000 });
          await client.startTLS({ ca, host: server.host });
          if (task.who !== 'anonymous') await client.bind(task.who[0], task.who[1]);
          clients.set(key, client);
        }
        answers.push(await performLdapts(client, task));
      } catch (error) {
        answers.push(failure(error));
      }
    }
    for (const client of clients.values()) await client.unbind();
    return answers;
  },
};

async function performLdapts(client: Ldapts, { step, controls }: Task): Promise<Answer> {
  switch (step.op) {
    case 'search': {
      const paged = controls.find((one) => one.kind === 'paged');
      const { searchEntries } = await client.search(step.base, {
        scope: step.scope ?? 'sub',
        filter: step.filter ?? '(objectClass=*)',
        derefAliases: step.deref === true ? 'always' : 'never',
        returnAttributeValues: step.typesOnly !== true,
        ...(step.sizeLimit === undefined ? {} : { sizeLimit: step.sizeLimit }),
        ...(step.attributes === undefined ? {} : { attributes: [...step.attributes] }),
        ...(paged?.kind === 'paged' ? { paged: { pageSize: paged.size } } : {}),
      });
      return { code: 0, entries: searchEntries.map(fromLdapts) };
    }
    case 'add':
      await client.add(step.dn, Object.fromEntries(Object.entries(step.attributes).map(([name, values]) => [name, [...values]])));
      return { code: 0 };
    case 'modify':
      await client.modify(
        step.dn,
        step.changes.map(
          ({ kind, attribute, values }) =>
            new LdaptsChange({
              operation: kind as 'add' | 'delete' | 'replace',
              modification: new Attribute({ type: attribute, values: [...values] }),
            }),
        ),
      );
      return { code: 0 };
    case 'rename':
      await client.modifyDN(step.dn, step.newSuperior === undefined ? step.newRdn : `${step.newRdn},${step.newSuperior}`);
      return { code: 0 };
    case 'delete':
      await client.del(step.dn);
      return { code: 0 };
    case 'compare':
      return { code: (await client.compare(step.dn, step.attribute, step.value)) ? 6 : 5 };
    case 'whoami':
      return { code: 0, value: (await client.exop(whoAmIOid)).value || 'anonymous' };
    case 'extended':
      await client.exop(step.oid, step.value);
      return { code: 0 };
    default:
      throw new Error(`not for this client: ${step.op}`);
  }
}

function fromLdapts(entry: Record<string, unknown>): SeenEntry {
  const { dn, ...attributes } = entry;
  const listed = Object.entries(attributes).map(([name, value]) => [name, (Array.isArray(value) ? value : [value]).map(String)]);
  return { dn: String(dn), attributes: Object.fromEntries(listed) };
}

export const ldapjsClient: Client = {
  name: 'ldapjs',
  cannot({ step, controls }) {
    if (controls.length > 0) return 'it sends binary controls as text';
    if (step.op === 'rename' && step.keepOld === true) return 'it always deletes the old name';
    if (step.op === 'modify' && step.changes.some((change) => change.kind === 'increment')) return 'it knows no increment';
    if (step.op === 'password') return 'it knows no password modify';
    if (step.op === 'search' && /[\\]|^\([&|]\)$|=\)/.test(step.filter ?? ''))
      return 'its filters of text decode no escapes and know no empty lists';
    if ('dn' in step && /\\|^[^=]*$/.test(step.dn ?? '')) return 'it loses escapes in names';
    if (step.op === 'search' && /\\|^[^=]+$/.test(step.base)) return 'it loses escapes in names';
    return undefined;
  },
  async run(server, tasks) {
    const ca = [await readFile(server.caFile)];
    const clients = new Map<string, ldapjs.Client>();
    const answers: Answer[] = [];
    for (const task of tasks) {
      const key = JSON.stringify(task.who);
      try {
        let client = clients.get(key);
        if (client === undefined) {
          const made = ldapjs.createClient({ url: server.url, timeout: 20_000 });
          made.on('error', () => {});
          await call((done) => made.starttls({ ca, host: server.host }, [], done));
          const { who } = task;
          if (who !== 'anonymous') await call((done) => made.bind(who[0], who[1], done));
          clients.set(key, made);
          client = made;
        }
        answers.push(await performLdapjs(client, task.step));
      } catch (error) {
        answers.push(failure(error));
      }
    }
    for (const client of clients.values()) await call((done) => client.unbind(done));
    return answers;
  },
};

function call<T>(start: (done: (error: Error | null | undefined, value?: T) => void) => void): Promise<T | undefined> {
  return new Promise((resolve, reject) => start((error, value) => (error ? reject(error) : resolve(value))));
}

async function performLdapjs(client: ldapjs.Client, step: Step): Promise<Answer> {
  switch (step.op) {
    case 'search':
      return searchLdapjs(client, step);
    case 'add':
      await call((done) => client.add(step.dn, step.attributes as Record<string, string[]>, done));
      return { code: 0 };
    case 'modify': {
      const changes = step.changes.map(
        ({ kind, attribute, values }) =>
          new ldapjs.Change({
            operation: kind as 'add' | 'delete' | 'replace',
            modification: { type: attribute, values: [...values] },
          }),
      );
      await call((done) => client.modify(step.dn, changes, done));
      return { code: 0 };
    }
    case 'rename': {
      const to = step.newSuperior === undefined ? step.newRdn : `${step.newRdn},${step.newSuperior}`;
      await call((done) => client.modifyDN(step.dn, to, done));
      return { code: 0 };
    }
    case 'delete':
      await call((done) => client.del(step.dn, done));
      return { code: 0 };
    case 'compare': {
      const matched = await call<boolean>((done) => client.compare(step.dn, step.attribute, step.value, done));
      return { code: matched === true ? 6 : 5 };
    }
    case 'whoami':
      return { code: 0, value: (await call<string>((done) => client.exop(whoAmIOid, undefined as never, done as never))) || 'anonymous' };
    case 'extended':
      await call((done) => client.exop(step.oid, (step.value ?? '') as never, done as never));
      return { code: 0 };
    default:
      throw new Error(`not for this client: ${step.op}`);
  }
}

function searchLdapjs(client: ldapjs.Client, step: Extract<Step, { op: 'search' }>): Promise<Answer> {
  const options: ldapjs.SearchOptions = {
    scope: step.scope ?? 'sub',
    filter: step.filter ?? '(objectClass=*)',
    derefAliases: step.deref === true ? 3 : 0,
    typesOnly: step.typesOnly === true,
    ...(step.sizeLimit === undefined ? {} : { sizeLimit: step.sizeLimit }),
    ...(step.attributes === undefined ? {} : { attributes: [...step.attributes] }),
  } as ldapjs.SearchOptions;
  return new Promise((resolve, reject) => {
    client.search(step.base, options, (error, search) => {
      if (error !== null) return reject(error);
      const entries: SeenEntry[] = [];
      search.on('searchEntry', ({ pojo }) => {
        entries.push({
          dn: String(pojo.objectName),
          attributes: Object.fromEntries(pojo.attributes.map((one) => [one.type, [...one.values]])),
        });
      });
      search.on('error', (problem) => resolve({ ...failure(problem), entries }));
      search.on('end', () => resolve({ code: 0, entries }));
    });
  });
}

function failure(error: unknown): Answer {
  const { code, message, lde_dn: matched } = error as { code?: unknown; message?: string; lde_dn?: string };
  if (typeof code !== 'number') return { code: -1, text: String(error) };
  return { code, text: message ?? '', ...(typeof matched === 'string' ? { matched } : {}) };
}
