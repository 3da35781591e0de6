import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { AccessControl } from '#directory/access/access.ts';
import { BindGuard } from '#directory/access/bind-guard.ts';
import { unlimited } from '#directory/access/view.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { Refusal } from '#directory/schema/refusal.ts';
import type { BindContext } from '#directory/server/authenticate.ts';
import { bind } from '#directory/server/bind.ts';
import { saslMechanisms } from '#directory/server/bind-sasl.ts';
import type { Operation } from '#directory/server/operation.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore } from '#directory/store/entry-store.ts';
import type { BindRequest } from '#protocol/ldap/messages.ts';
import { resultName } from '#protocol/ldap/result-codes.ts';

const store = new EntryStore(':memory:', { keysOf: () => [], talliesOf: () => [] });
let context: BindContext;

beforeAll(() => {
  const tree = new Tree({ store, schema: createMailSchema(), suffix: 'o=mail', clock: systemClock, mode: 'master' });
  const dn = 'cn=frontend,ou=services,o=mail';
  context = {
    tree,
    access: new AccessControl(tree),
    identities: [
      {
        dn,
        key: tree.keyOf(tree.parseName(dn)),
        rights: 'frontend',
        isProxy: false,
        password: new Secret('secret'),
        certificateName: 'f.example',
      },
    ],
    hasher: createPasswordHasher(systemRandom),
    guard: new BindGuard(systemClock),
    passwordsInClear: 'loopback',
    policy: undefined,
    clock: systemClock,
    log: silentLogger,
  };
});
afterAll(() => store[Symbol.dispose]());

function operation(more: Partial<Operation>): Operation {
  return {
    id: 1,
    who: { dn: '', rights: 'anonymous', uuid: undefined },
    view: unlimited,
    controls: [],
    remoteAddress: '192.0.2.7',
    isTls: false,
    tlsSsf: 0,
    isProtected: false,
    peerNames: [],
    isAborted: false,
    signal: new AbortController().signal,
    flush: () => {},
    send: () => {},
    sendEncoded: () => {},
    writable: () => undefined,
    ...more,
  };
}

const simple: BindRequest = {
  type: 'bindRequest',
  version: 3,
  name: 'cn=frontend,ou=services,o=mail',
  authentication: { method: 'simple', password: new Secret(Buffer.from('secret')) },
};
const plain: BindRequest = {
  ...simple,
  authentication: { method: 'sasl', mechanism: 'PLAIN', credentials: new Secret(Buffer.from('\0cn=frontend,ou=services,o=mail\0secret')) },
};

async function outcome(work: Promise<{ readonly rights: string }>): Promise<string> {
  return work.then(
    ({ rights }) => rights,
    (error: unknown) => (error instanceof Refusal ? resultName(error.resultCode) : String(error)),
  );
}

test('a password in clear from another machine is refused before it is looked at', async () => {
  expect(await outcome(bind(context, simple, operation({})))).toBe('confidentialityRequired');
  expect(await outcome(bind(context, plain, operation({})))).toBe('confidentialityRequired');
  expect(await outcome(bind(context, simple, operation({ isTls: true, isProtected: true })))).toBe('frontend');
  expect(await outcome(bind(context, plain, operation({ isTls: true, isProtected: true })))).toBe('frontend');
});

test('where the configuration says so, simple bind is taken in clear and PLAIN still is not', async () => {
  const lenient: BindContext = { ...context, passwordsInClear: 'anywhere' };
  expect(await outcome(bind(lenient, simple, operation({})))).toBe('frontend');
  expect(await outcome(bind(lenient, plain, operation({})))).toBe('confidentialityRequired');
});

test('the mechanisms on offer depend on protection and on the certificate', () => {
  expect(saslMechanisms(context, operation({}))).toEqual([]);
  expect(saslMechanisms(context, operation({ isProtected: true }))).toEqual(['PLAIN']);
  expect(saslMechanisms(context, operation({ isProtected: true, peerNames: ['F.example'] }))).toEqual(['PLAIN', 'EXTERNAL']);
});
