/** Answers questions about the access rules, and has them read again: the extended operation of client/access-rules.ts. */
import { printable } from '#common/account-name.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { AccessRulesRequest, ExplainedAccess, ShownRules } from '#directory/client/access-rules.ts';
import type { AccessControl } from '../access/access.ts';
import { explain } from '../access/explain.ts';
import { Refusal } from '../schema/refusal.ts';
import type { BindContext } from './authenticate.ts';
import { requireEntry, targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import { requesterOf } from './proxied-authorization.ts';

const requestBytesMax = 65_536;

/** The response value. */
export async function answerAccessRules(
  context: BindContext,
  access: AccessControl,
  reload: () => Promise<void>,
  value: Buffer | undefined,
  operation: Operation,
): Promise<Buffer> {
  if (operation.who.rights !== 'admin') throw new Refusal('insufficientAccessRights', 'access rules are for the right admin only');
  const request = readRequest(value);
  if (request.ask === 'explain') return json(explained(context, access, request, operation));
  if (request.ask === 'reload') {
    try {
      await reload();
    } catch (error) {
      throw new Refusal('unwillingToPerform', `the rules stay as they are: ${messageOf(error)}`);
    }
  }
  const shown: ShownRules = { rules: access.rules.map(({ number, origin, text }) => ({ number, origin, rule: text })) };
  return json(shown);
}

function explained(
  context: BindContext,
  access: AccessControl,
  request: Extract<AccessRulesRequest, { ask: 'explain' }>,
  operation: Operation,
): ExplainedAccess {
  const { tree } = context;
  const who = requesterOf(context, /^(?:dn:|u:|$)/i.test(request.who) ? request.who : `dn:${request.who}`);
  const entry = requireEntry(tree, operation.view, tree.parseName(request.dn));
  const type = tree.schema.attributeType(request.attribute);
  const isPseudo = request.attribute === 'entry' || request.attribute === 'children';
  if (type === undefined && !isPseudo) {
    throw new Refusal(
      'undefinedAttributeType',
      `attribute ${printable(request.attribute)} is not known here; entry and children are others`,
    );
  }
  const asker = access.askerOf(who, { remoteAddress: request.peer ?? '', tlsSsf: request.ssf ?? 256 });
  const found = explain(access.rules, asker, access.groups, targetOf(tree, entry), type?.key ?? request.attribute);
  return { who: who.dn === '' ? 'anonymous' : who.dn, dn: tree.store.dnOf(entry), attribute: type?.name ?? request.attribute, ...found };
}

function readRequest(value: Buffer | undefined): AccessRulesRequest {
  const malformed = (): never => {
    throw new Refusal('protocolError', 'the request about access rules is malformed');
  };
  if (value === undefined || value.length > requestBytesMax) return malformed();
  let given: unknown;
  try {
    given = JSON.parse(value.toString('utf8'));
  } catch {
    return malformed();
  }
  if (typeof given !== 'object' || given === null) return malformed();
  const { ask, who, dn, attribute, peer, ssf } = given as Record<string, unknown>;
  if (ask === 'show' || ask === 'reload') return { ask };
  const areTexts = [who, dn, attribute].every((one) => typeof one === 'string');
  const isPeer = peer === undefined || typeof peer === 'string';
  if (ask !== 'explain' || !areTexts || !isPeer || (ssf !== undefined && typeof ssf !== 'number')) return malformed();
  return given as AccessRulesRequest;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
