/** `archipelago directory acl …`: the access rules of a running server. */
import { type AccessRulesRequest, accessRulesOid, type ExplainedAccess, type ShownRules } from '#directory/client/access-rules.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { Misuse } from './misuse.ts';

/** Levels as the rules name them, with the privileges that make them. */
const levelPrivileges: Readonly<Record<string, readonly string[]>> = { write: ['add', 'delete'] };

/** Runs one of the verbs; the exit code. */
export async function aclCommand(
  connection: LdapConnection,
  args: readonly string[],
  options: { readonly json?: boolean | undefined; readonly peer?: string | undefined; readonly ssf?: string | undefined },
  out: (text: string) => void,
): Promise<number> {
  const [verb = '', who, dn, attribute, privilege] = args;
  const ask = async <T>(request: AccessRulesRequest): Promise<T> => {
    const { value } = await connection.extended(accessRulesOid, Buffer.from(JSON.stringify(request)));
    return JSON.parse(value?.toString('utf8') ?? '{}') as T;
  };
  if (verb === 'show' || verb === 'reload') {
    const { rules } = await ask<ShownRules>({ ask: verb });
    if (options.json === true) out(`${JSON.stringify({ rules })}\n`);
    else for (const { number, origin, rule } of rules) out(`${number} ${origin}: ${rule}\n`);
    return 0;
  }
  if (verb !== 'explain' && verb !== 'test') throw new Misuse('acl needs show, explain, test or reload');
  if (who === undefined || dn === undefined || attribute === undefined) throw new Misuse(`acl ${verb} needs WHO DN ATTRIBUTE`);
  if (verb === 'test' && privilege === undefined) throw new Misuse('acl test needs a privilege: WHO DN ATTRIBUTE PRIVILEGE');
  const found = await ask<ExplainedAccess>({
    ask: 'explain',
    who: who === 'anonymous' ? '' : who,
    dn,
    attribute,
    ...(options.peer === undefined ? {} : { peer: options.peer }),
    ...(options.ssf === undefined ? {} : { ssf: Number(options.ssf) }),
  });
  if (verb === 'explain') {
    out(options.json === true ? `${JSON.stringify(found)}\n` : explanationText(found));
    return 0;
  }
  const wanted = levelPrivileges[privilege as string] ?? [privilege as string];
  const isGiven = wanted.every((one) => found.privileges.includes(one));
  const decides = found.steps.find((step) => step.decides);
  const by = decides === undefined ? 'no rule is about it' : `rule ${decides.number}: ${decides.outcome}`;
  if (options.json === true) out(`${JSON.stringify({ given: isGiven, privilege, ...found })}\n`);
  else out(`${isGiven ? 'yes' : 'no'}: ${found.who} has ${found.granted} on ${found.attribute} of ${found.dn} (${by})\n`);
  return isGiven ? 0 : 6;
}

function explanationText(found: ExplainedAccess): string {
  const lines = [`${found.who} has on ${found.attribute} of ${found.dn}: ${found.granted}`, ''];
  for (const { number, origin, rule, outcome, decides } of found.steps) {
    lines.push(`${decides ? '>' : ' '} ${number} ${origin}: ${rule}`, `      ${outcome}`);
  }
  if (!found.steps.some((step) => step.decides)) lines.push('no rule decides, so nothing is allowed');
  return `${lines.join('\n')}\n`;
}
