/**
 * Schema files: definitions beside those that every server has. Taken are LDIF with `attributeTypes`, `objectClasses` (389-DS, RFC 4512) or
 * `olcAttributeTypes`, `olcObjectClasses`, `olcObjectIdentifier` (OpenLDAP's cn=config), and OpenLDAP's .schema form. Every mistake is told with file
 * and line, and a file with one is refused as a whole.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Schema } from './schema.ts';

/** One file, read. */
export interface SchemaFile {
  readonly path: string;
  readonly text: string;
}

/** Longest schema file, characters, and definitions of all files. */
const fileCharactersMax = 4_194_304;
const definitionsMax = 20_000;

interface Statement {
  readonly line: number;
  /** Lower case. */
  readonly keyword: string;
  readonly value: string;
}

/** Extends a schema by files, in their order, or throws `CONFIG_INVALID` with all mistakes. */
export function extendSchema(schema: Schema, files: readonly SchemaFile[]): void {
  const mistakes: string[] = [];
  let definitions = 0;
  for (const { path, text } of files) {
    const at = (line: number, why: string): void => {
      mistakes.push(`${path}:${line}: ${why}`);
    };
    if (text.length > fileCharactersMax) {
      at(1, `the file has ${text.length} characters; at most ${fileCharactersMax} are read`);
      continue;
    }
    const identifiers = new Map<string, string>();
    let found = 0;
    for (const { line, keyword, value } of statementsOf(text, at)) {
      const kind = kinds[keyword];
      if (kind === undefined) continue;
      found += 1;
      definitions += 1;
      if (definitions > definitionsMax)
        throw new PlatformError('CONFIG_INVALID', `more than ${definitionsMax} schema definitions are given`);
      try {
        define(schema, kind, value.replace(/^\{\d+\}/, '').trim(), identifiers);
      } catch (error) {
        at(line, messageOf(error));
      }
    }
    if (found === 0) at(1, 'the file defines nothing; expected are attributeTypes, objectClasses, olcAttributeTypes or olcObjectClasses');
  }
  if (mistakes.length === 0) return;
  const shown = mistakes.slice(0, 50).join('\n');
  throw new PlatformError('CONFIG_INVALID', `the schema files have ${mistakes.length} mistake(s):\n${shown}`);
}

type Kind = 'attribute' | 'class' | 'identifier' | 'unsupported';

const kinds: Readonly<Record<string, Kind>> = {
  attributetypes: 'attribute',
  olcattributetypes: 'attribute',
  attributetype: 'attribute',
  objectclasses: 'class',
  olcobjectclasses: 'class',
  'objectclass(': 'class',
  olcobjectidentifier: 'identifier',
  objectidentifier: 'identifier',
  olcldapsyntaxes: 'unsupported',
  ldapsyntaxes: 'unsupported',
};

function define(schema: Schema, kind: Kind, value: string, identifiers: Map<string, string>): void {
  if (kind === 'unsupported') throw new PlatformError('CONFIG_INVALID', 'syntaxes cannot be defined; use one that the server has');
  if (kind === 'identifier') {
    const [name = '', oid = ''] = value.split(/\s+/);
    if (!/^[A-Za-z][A-Za-z0-9-]*$/.test(name) || oid === '')
      throw new PlatformError('CONFIG_INVALID', 'an object identifier is a name and an OID');
    identifiers.set(name.toLowerCase(), resolved(oid, identifiers));
    return;
  }
  const expanded = value
    .replace(
      /^(\(\s*)([A-Za-z][A-Za-z0-9-]*(?:[:.][0-9.]+)?)(?=\s)/,
      (_all, open: string, oid: string) => open + resolved(oid, identifiers),
    )
    .replace(
      /(\bSYNTAX\s+'?)([A-Za-z][A-Za-z0-9-]*(?:[:.][0-9.]+)?)(?=[\s'{])/,
      (_all, keyword: string, oid: string) => keyword + resolved(oid, identifiers),
    );
  schema.define(kind, expanded);
}

// `name`, `name:1.2` or `name.1.2`, where the name stands for an OID.
function resolved(text: string, identifiers: ReadonlyMap<string, string>): string {
  const parts = /^([A-Za-z][A-Za-z0-9-]*)(?:[:.](.+))?$/.exec(text);
  if (parts === null) return text;
  const oid = identifiers.get((parts[1] as string).toLowerCase());
  if (oid === undefined) throw new PlatformError('CONFIG_INVALID', `the object identifier ${parts[1]} is not defined before`);
  return parts[2] === undefined ? oid : `${oid}.${parts[2]}`;
}

// Lines put together again: in LDIF one that begins with a space goes on with the one before; in .schema any white space does, as a space.
function* statementsOf(text: string, mistake: (line: number, why: string) => void): Generator<Statement> {
  let open: { line: number; text: string; isSchemaForm: boolean } | undefined;
  const finished = (): Statement | undefined => {
    const whole = open;
    open = undefined;
    return whole === undefined ? undefined : statementOf(whole, mistake);
  };
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/\r$/, '');
    if (/^[ \t]/.test(line) && line.trim() !== '') {
      if (open === undefined) continue;
      open.text += open.isSchemaForm ? ` ${line.trim()}` : line.slice(1);
      continue;
    }
    if (line.startsWith('#') && open?.isSchemaForm === true) continue;
    const statement = finished();
    if (statement !== undefined) yield statement;
    if (line.trim() === '') continue;
    open = { line: index + 1, text: line, isSchemaForm: /^(?:attributetype|objectclass|objectidentifier)\s/i.test(line) };
  }
  const last = finished();
  if (last !== undefined) yield last;
}

function statementOf(
  { line, text, isSchemaForm }: { line: number; text: string; isSchemaForm: boolean },
  mistake: (line: number, why: string) => void,
): Statement | undefined {
  if (text.startsWith('#') || text === '-') return undefined;
  if (isSchemaForm) {
    const [, keyword = '', value = ''] = /^(\S+)\s+([\s\S]*)$/.exec(text) ?? [];
    // `objectClass:` of an LDIF entry names its class, `objectclass (` defines one.
    return { line, keyword: keyword.toLowerCase() === 'objectclass' ? 'objectclass(' : keyword.toLowerCase(), value };
  }
  const parts = /^([A-Za-z][A-Za-z0-9;-]*):(:?)[ ]*([\s\S]*)$/.exec(text);
  if (parts === null) {
    mistake(line, `"${text.slice(0, 40)}" is neither an LDIF line nor attributetype, objectclass or objectidentifier`);
    return undefined;
  }
  const value = parts[2] === ':' ? Buffer.from(parts[3] as string, 'base64').toString('utf8') : (parts[3] as string);
  const keyword = (parts[1] as string).toLowerCase();
  return { line, keyword: keyword === 'objectclass' ? 'ldif' : keyword, value };
}
