/**
 * From a request to the operation that answers it: checks the controls, counts, and says which operations hold back the ones behind them.
 */

import { printable } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import { accessRulesOid } from '#directory/client/access-rules.ts';
import { asOfOid, authorityOid, fenceOid, forwardedOid } from '#directory/client/authority.ts';
import { backupOid } from '#directory/client/backup.ts';
import type { DirectoryStatus } from '#directory/client/status.ts';
import { controlOids, findControl } from '#protocol/ldap/controls.ts';
import { encodeImageResult, imageBatchOid, readImageBatch } from '#protocol/ldap/image-batch.ts';
import { type Attribute, type Control, extendedOids, type LdapRequest, type SearchRequest } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { readCancel } from '#protocol/ldap/sort.ts';
import { type AccessControl, anonymous } from '../access/access.ts';
import { passwordPolicyOid, policyResponse } from '../access/password-policy.ts';
import { Refusal } from '../schema/refusal.ts';
import { answerAccessRules } from './access-rules.ts';
import { addEntry } from './add.ts';
import { waitAsOf } from './as-of.ts';
import type { BindContext } from './authenticate.ts';
import { bind } from './bind.ts';
import { saslMechanisms } from './bind-sasl.ts';
import { compare } from './compare.ts';
import { deleteEntry } from './delete.ts';
import { compileFilter } from './filter-match.ts';
import { type ForwardedRequest, type WriteForwarder, wasForwarded } from './forward-writes.ts';
import { modifyEntry } from './modify.ts';
import { modifyDn } from './modify-dn.ts';
import { isMonitorName, searchMonitor } from './monitor.ts';
import { checkMustChange, mustChangeFirst } from './must-change.ts';
import type { Operation } from './operation.ts';
import { modifyPassword } from './password-modify.ts';
import { PointSearch } from './point-search.ts';
import { hasClearPassword, withHashedPasswords } from './prepare-passwords.ts';
import { mayBeOnBehalf, onBehalf } from './proxied-authorization.ts';
import { search } from './search.ts';
import { compileSelection } from './selection.ts';
import type { Dispatcher, LdapSession } from './session.ts';
import { rootDse, subschema, supportedControls } from './special-entries.ts';
import { followChanges, type SyncContext } from './sync.ts';
import { subschemaDn } from './tree.ts';
import { checkImageBatch, ImageWriter } from './write-images.ts';
import { WriteLog } from './write-log.ts';
import type { WriteContext } from './write-rules.ts';

type Started = ReturnType<Dispatcher['dispatch']>;
type WriteOperation = Extract<LdapRequest, { type: 'addRequest' | 'modifyRequest' | 'modifyDnRequest' | 'deleteRequest' }>;

/** What the operations of one server work with. */
export interface DispatchContext {
  readonly write: WriteContext;
  readonly binding: BindContext;
  readonly sync: SyncContext;
  readonly access: AccessControl;
  /** On a replica that sends writes on to its master. */
  readonly forwarder: WriteForwarder | undefined;
  /** Reads the access rules again; rejects and leaves things as they are when there is a mistake. */
  reloadAccess(): Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly version: string;
  /** Makes a copy of the database and gives its path; missing where no directory for copies is configured. */
  readonly backup: (() => Promise<string>) | undefined;
  /** The whole picture, for `cn=Monitor`. */
  status(): DirectoryStatus;
  /** Generalized time of the start. */
  readonly startedAt: string;
}

/** Makes the dispatcher; `counts` holds the operations so far by name. */
export function createDispatcher(context: DispatchContext): Dispatcher & { readonly counts: Record<string, number> } {
  const { tree } = context.write;
  const counts: Record<string, number> = {};
  const writeLog = new WriteLog(context.log, context.clock);
  const images = new ImageWriter(tree);
  const points = new PointSearch(tree);
  const total = context.metrics.counter('archipelago_directory_operations_total', 'LDAP operations begun', ['operation']);
  const duration = context.metrics.histogram('archipelago_directory_operation_seconds', 'Time until an LDAP operation was answered', [
    'operation',
  ]);

  // Answers are the master's, word for word; requests behind it need not wait for it.
  const forward = (forwarder: WriteForwarder, request: ForwardedRequest, operation: Operation): Promise<void> =>
    forwarder.forward(request, operation).then(({ result, controls, value }) => {
      const { resultCode, matchedDn, diagnosticMessage, referrals } = result;
      const answer = { resultCode, matchedDn, diagnosticMessage, referrals };
      if (request.type === 'extendedRequest') operation.send({ type: 'extendedResponse', ...answer, value }, controls);
      else operation.send({ type: answerOf[request.type], ...answer }, controls);
    });

  const write = (request: WriteOperation, operation: Operation): Started => {
    const { forwarder } = context;
    if (forwarder !== undefined && tree.mode === 'replica' && operation.who.rights !== 'replicator' && !wasForwarded(operation))
      return { done: forward(forwarder, request, operation) };
    const relaxed = findControl(operation.controls, controlOids.relax) !== undefined;
    const run = (ready: WriteOperation): Promise<void> =>
      tree.store
        .write(() => execute(context.write, ready, operation))
        .then((controls) => {
          operation.send({ type: answerOf[ready.type], ...success }, controls);
          writeLog.written(ready.type.replace('Request', ''), ready.dn, operation);
        });
    if (relaxed || !mayHoldPassword(request)) return { done: run(request) };
    const ready = hashed(context.binding.hasher, request);
    // What is behind this request starts after it has entered its transaction.
    let done: Promise<void> | undefined;
    const started = ready.then((prepared) => {
      done = run(prepared);
      done.catch(() => {});
    });
    return { done: started.then(() => done), started };
  };

  const special = (request: SearchRequest, operation: Operation, attributes: readonly Attribute[]): void => {
    const matches = compileFilter(tree.schema, request.filter, () => true)(attributes);
    if (matches === true) {
      const selection = compileSelection(tree.schema, request.attributes, request.typesOnly, () => true);
      operation.send({ type: 'searchResultEntry', dn: request.baseDn, attributes: selection.select(attributes) });
    }
    operation.send({ type: 'searchResultDone', ...success });
  };

  const searching = async (session: LdapSession, request: SearchRequest, operation: Operation): Promise<void> => {
    const waiting = waitAsOf(tree, context.clock, operation);
    if (waiting !== undefined) await waiting;
    const asserted = findControl(operation.controls, controlOids.assertion);
    if (asserted?.critical === true) return search(tree, context.clock, request, operation);
    if (request.scope === 'base') {
      if (request.baseDn === '')
        return special(
          request,
          operation,
          rootDse(
            tree.suffix.text,
            {
              startTls: session.startTls !== undefined,
              saslMechanisms: saslMechanisms(context.binding, operation),
              backup: context.backup !== undefined,
              images: tree.mode === 'replica',
              role: context.write.authority?.roleText,
            },
            context.version,
          ),
        );
      if (request.baseDn.toLowerCase() === subschemaDn.toLowerCase())
        return special(request, operation, subschema(tree.schema, context.startedAt));
    }
    // Asked for rarely, so the name is parsed only when it can be one of these.
    if (/monitor\s*$/i.test(request.baseDn) && isMonitorName(tree, tree.parseName(request.baseDn))) {
      return searchMonitor(tree, context.status(), context.startedAt, request, operation);
    }
    if (findControl(operation.controls, controlOids.syncRequest) !== undefined) return followChanges(context.sync, request, operation);
    return search(tree, context.clock, request, operation);
  };

  const extended = async (session: LdapSession, oid: string, value: Buffer | undefined, operation: Operation): Promise<void> => {
    if (oid === extendedOids.whoAmI) {
      const { dn } = operation.who;
      operation.send({ type: 'extendedResponse', ...success, value: Buffer.from(dn === '' ? '' : `dn:${dn}`) });
    } else if (oid === imageBatchOid) {
      const batch = checkImageBatch(tree, readImageBatch(value), operation);
      const result = await tree.store.write(
        () => {
          context.write.authority?.checkWrite(operation);
          return images.write(batch);
        },
        batch.contextCsn === undefined ? 'relaxed' : 'shown',
      );
      operation.send({ type: 'extendedResponse', ...success, value: encodeImageResult(result) });
      operation.flush();
    } else if (oid === extendedOids.passwordModify) {
      if (context.forwarder !== undefined && tree.mode === 'replica' && !wasForwarded(operation)) {
        return forward(context.forwarder, { type: 'extendedRequest', oid, value }, operation);
      }
      const made = await modifyPassword(context.write, context.binding, value, operation);
      operation.send({ type: 'extendedResponse', ...success, value: made });
    } else if (oid === extendedOids.startTls) {
      // RFC 4511 §4.14.1: not while other operations run, and once only.
      if (session.isTls) throw new Refusal('operationsError', 'the connection is under TLS already');
      if (session.outstanding > 1) throw new Refusal('operationsError', 'StartTLS must wait for the operations before it');
      await session.upgrade(() => operation.send({ type: 'extendedResponse', ...success, oid: extendedOids.startTls }));
    } else if (oid === backupOid) {
      if (operation.who.rights !== 'admin') throw new Refusal('insufficientAccessRights', 'a backup is made for the right admin only');
      if (context.backup === undefined) {
        const advice = 'set backupDirectory in its node file and start it again';
        throw new Refusal('unwillingToPerform', `this server has no directory for backups: ${advice}`);
      }
      const path = await context.backup();
      context.log.info({ by: operation.who.dn, path, op: 'backup', outcome: 'done' }, 'backup made');
      operation.send({ type: 'extendedResponse', ...success, value: Buffer.from(path) });
    } else if (oid === accessRulesOid) {
      const answer = await answerAccessRules(context.binding, context.access, context.reloadAccess, value, operation);
      operation.send({ type: 'extendedResponse', ...success, value: answer });
    } else if (oid === authorityOid && context.write.authority !== undefined) {
      operation.send({ type: 'extendedResponse', ...success, value: await context.write.authority.answer(value, operation.who) });
    } else if (oid === extendedOids.cancel) {
      const target = readCancel(value);
      if (target === undefined) throw new Refusal('protocolError', 'the cancel request is malformed (RFC 3909 §2.1)');
      const outcome = session.cancel(target);
      if (outcome !== 'success') throw new Refusal(outcome, `operation ${target} cannot be canceled: ${outcome}`);
      operation.send({ type: 'extendedResponse', ...success });
    } else {
      throw new Refusal('protocolError', `the extended operation ${printable(oid)} is not offered here`);
    }
  };

  const start = (session: LdapSession, request: LdapRequest, asked: Operation): Started => {
    checkControls(request, asked.controls);
    const operation = onBehalf(context.binding, context.access, request, asked);
    checkMustChange(tree, request, operation);
    switch (request.type) {
      case 'bindRequest': {
        session.requester = anonymous;
        const alone = session.alone(operation);
        const bound =
          alone === undefined ? bind(context.binding, request, operation) : alone.then(() => bind(context.binding, request, operation));
        const done = bound.then((requester) => {
          session.requester = requester;
          const asksForPolicy = findControl(operation.controls, passwordPolicyOid) !== undefined;
          const error = mustChangeFirst(tree, requester) ? 'changeAfterReset' : undefined;
          operation.send({ type: 'bindResponse', ...success }, asksForPolicy ? [policyResponse(error)] : []);
        });
        return { done, started: done };
      }
      case 'searchRequest':
        return points.answer(request, operation) ? {} : { done: searching(session, request, operation) };
      case 'compareRequest':
        return {
          done: (waitAsOf(tree, context.clock, operation) ?? Promise.resolve())
            .then(() => compare(tree, request, operation))
            .then((resultCode) => operation.send({ type: 'compareResponse', ...success, resultCode })),
        };
      case 'extendedRequest': {
        const done = extended(session, request.oid, request.value, operation);
        return sideBySide.has(request.oid) ? { done } : { done, started: done };
      }
      case 'addRequest':
      case 'modifyRequest':
      case 'modifyDnRequest':
      case 'deleteRequest':
        return write(request, operation);
      default:
        return { done: Promise.resolve() };
    }
  };

  return {
    counts,
    dispatch(session, request, operation) {
      const name = request.type.replace('Request', '');
      counts[name] = (counts[name] ?? 0) + 1;
      total.add({ operation: name });
      const beganAtMs = context.clock.monotonicMs();
      let begun: Started;
      try {
        begun = start(session, request, operation);
      } catch (error) {
        return { done: Promise.reject(error) };
      }
      const observed = (): void => duration.observe({ operation: name }, (context.clock.monotonicMs() - beganAtMs) / 1000);
      if (begun.done === undefined) observed();
      else begun.done.then(observed, observed);
      return begun;
    },
  };
}

/** Extended operations that hold nothing back; batches of entries enter their transactions in the order in which they come. */
const sideBySide: ReadonlySet<string> = new Set([extendedOids.whoAmI, extendedOids.cancel, backupOid, accessRulesOid, imageBatchOid]);

const success = { resultCode: resultCodes.success, matchedDn: '', diagnosticMessage: '' };

const answerOf = {
  addRequest: 'addResponse',
  modifyRequest: 'modifyResponse',
  modifyDnRequest: 'modifyDnResponse',
  deleteRequest: 'deleteResponse',
} as const;

function execute(context: WriteContext, request: WriteOperation, operation: Operation): Control[] {
  switch (request.type) {
    case 'addRequest':
      return addEntry(context, request, operation);
    case 'modifyRequest':
      return modifyEntry(context, request, operation);
    case 'modifyDnRequest':
      return modifyDn(context, request, operation);
    case 'deleteRequest':
      return deleteEntry(context, request, operation);
  }
}

// RFC 4511 §4.1.11: a critical control that is not known, or not for this operation, stops the operation.
function checkControls(request: LdapRequest, controls: readonly Control[]): void {
  if (controls.length === 0) return;
  const isWrite = request.type in answerOf;
  const fitting: Record<string, boolean> = {
    [controlOids.pagedResults]: request.type === 'searchRequest',
    [controlOids.syncRequest]: request.type === 'searchRequest',
    [controlOids.serverSideSort]: request.type === 'searchRequest',
    [controlOids.treeDelete]: request.type === 'deleteRequest',
    [controlOids.proxiedAuthorization]: mayBeOnBehalf(request),
    [controlOids.manageDsaIt]: true,
    [passwordPolicyOid]: true,
    [controlOids.assertion]: isWrite || request.type === 'compareRequest' || request.type === 'searchRequest',
    [controlOids.preRead]: isWrite && request.type !== 'addRequest',
    [controlOids.postRead]: isWrite && request.type !== 'deleteRequest',
    [controlOids.relax]: isWrite,
    [fenceOid]: isWrite,
    [forwardedOid]: isWrite || request.type === 'extendedRequest',
    [asOfOid]: request.type === 'searchRequest' || request.type === 'compareRequest',
  };
  for (const [index, control] of controls.entries()) {
    if (controls.findIndex(({ oid }) => oid === control.oid) !== index) {
      throw new Refusal('protocolError', `the control ${printable(control.oid)} is given twice`);
    }
    if (!control.critical || fitting[control.oid] === true) continue;
    const why = supportedControls.includes(control.oid) ? 'does not go with this operation' : 'is not known here';
    throw new Refusal('unavailableCriticalExtension', `the critical control ${printable(control.oid)} ${why}`);
  }
}

function mayHoldPassword(request: WriteOperation): boolean {
  if (request.type === 'addRequest') return hasClearPassword(request.attributes);
  if (request.type === 'modifyRequest') return hasClearPassword(newValues(request));
  return false;
}

function newValues(request: Extract<WriteOperation, { type: 'modifyRequest' }>): Attribute[] {
  return request.changes.filter((change) => change.kind === 'add' || change.kind === 'replace').map((change) => change.attribute);
}

async function hashed(hasher: BindContext['hasher'], request: WriteOperation): Promise<WriteOperation> {
  if (request.type === 'addRequest') return { ...request, attributes: await withHashedPasswords(hasher, request.attributes) };
  if (request.type !== 'modifyRequest') return request;
  const changes = await Promise.all(
    request.changes.map(async (change) => {
      if (change.kind !== 'add' && change.kind !== 'replace') return change;
      const [attribute] = await withHashedPasswords(hasher, [change.attribute]);
      return { ...change, attribute: attribute as Attribute };
    }),
  );
  return { ...request, changes };
}
