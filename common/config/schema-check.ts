/**
 * Data against a schema: every mistake at once, each in words an operator can act on. Defaults are filled in on the way, in place.
 *
 * It knows the part of JSON Schema that our declarations (declare.ts) use; a test holds it against a validator that knows all of it, which would
 * take a third of the time of a start to compile the same declarations.
 */
import type { TSchema } from 'typebox';
import { printable } from '#common/account-name.ts';
import { nearestName } from '#common/config/nearest.ts';

/** A way to a value: keys and indexes from the top. */
export type Path = readonly (string | number)[];

/** A mistake, not yet with its place in the file. */
export interface Mistake {
  readonly path: Path;
  /** Whether the key is wrong, not its value. */
  readonly atKey: boolean;
  readonly message: string;
}

type Json = Record<string, unknown>;

/** What a declaration may say. */
interface Schema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly items?: Schema;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean;
  readonly default?: unknown;
  readonly description?: string;
}

/** Checks `data` and fills in its defaults. `prefix` goes before each path. */
export function checkAgainst(schema: TSchema, data: unknown, prefix: Path = []): Mistake[] {
  const mistakes: Mistake[] = [];
  check(schema as Schema, data, prefix, mistakes);
  return mistakes;
}

function check(schema: Schema, data: unknown, path: Path, mistakes: Mistake[]): void {
  const wrong = (message: string): void => {
    mistakes.push({ path, atKey: false, message: `${shown(data)} ${message}` });
  };
  if (schema.type !== undefined && !isOfType(schema.type, data)) {
    const isBare = schema.type === 'string' && (typeof data === 'number' || typeof data === 'boolean');
    wrong(`is not ${typeNames[schema.type] ?? schema.type}${isBare ? `; write it in quotes: "${String(data)}"` : ''}`);
  }
  if (typeof data === 'number') checkNumber(schema, data, wrong);
  else if (typeof data === 'string') checkText(schema, data, wrong);
  else if (Array.isArray(data)) checkList(schema, data, path, mistakes);
  else if (typeof data === 'object' && data !== null) checkGroup(schema, data as Json, path, mistakes);
  if ('const' in schema && data !== schema.const) wrong(`is not ${JSON.stringify(schema.const)}`);
  if (schema.enum !== undefined && !schema.enum.includes(data)) {
    const allowed = schema.enum.map(String);
    wrong(`is not one of ${allowed.join('|')}${suggestion(String(data), allowed)}`);
  }
}

function isOfType(type: string, data: unknown): boolean {
  switch (type) {
    case 'object':
      return typeof data === 'object' && data !== null && !Array.isArray(data);
    case 'array':
      return Array.isArray(data);
    case 'integer':
      return Number.isInteger(data);
    case 'number':
      return Number.isFinite(data);
    // The other names of JSON Schema are those of the language.
    default:
      return typeof data === type;
  }
}

function checkNumber({ minimum, maximum }: Schema, data: number, wrong: (message: string) => void): void {
  if (maximum !== undefined && data > maximum) wrong(`is too large; at most ${maximum} is expected`);
  if (minimum !== undefined && data < minimum) wrong(`is too small; at least ${minimum} is expected`);
}

function checkText({ minLength, maxLength, pattern, description }: Schema, data: string, wrong: (message: string) => void): void {
  // Characters, not halves of pairs.
  const length = minLength === undefined && maxLength === undefined ? 0 : [...data].length;
  if (maxLength !== undefined && length > maxLength) wrong(`is too long; at most ${maxLength} characters are expected`);
  if (minLength !== undefined && length < minLength) wrong(`is too short; at least ${minLength} characters are expected`);
  if (pattern === undefined || new RegExp(pattern, 'u').test(data)) return;
  wrong(`cannot be used; expected is: ${description === undefined ? `a text like ${pattern}` : description.replace(/\.$/, '')}`);
}

function checkList({ minItems, maxItems, items }: Schema, data: readonly unknown[], path: Path, mistakes: Mistake[]): void {
  const wrong = (message: string): void => void mistakes.push({ path, atKey: false, message });
  if (maxItems !== undefined && data.length > maxItems) wrong(`the list is too long; at most ${maxItems} are expected`);
  if (minItems !== undefined && data.length < minItems) wrong(`the list is too short; at least ${minItems} is expected`);
  if (items === undefined) return;
  for (const [index, item] of data.entries()) check(items, item, [...path, index], mistakes);
}

function checkGroup({ required = [], properties = {}, additionalProperties }: Schema, data: Json, path: Path, mistakes: Mistake[]): void {
  for (const [key, property] of Object.entries(properties)) {
    if (data[key] === undefined && 'default' in property) data[key] = structuredClone(property.default);
  }
  for (const key of required) {
    if (data[key] !== undefined) continue;
    const description = properties[key]?.description;
    const message = `is missing${description === undefined ? '' : `: ${description.replace(/\.$/, '')}`}`;
    mistakes.push({ path: [...path, key], atKey: true, message });
  }
  const known = Object.keys(properties);
  for (const key of additionalProperties === false ? Object.keys(data) : []) {
    if (Object.hasOwn(properties, key)) continue;
    const message = `unknown key${suggestion(key, known) || `; known here: ${known.join(', ')}`}`;
    mistakes.push({ path: [...path, key], atKey: true, message });
  }
  for (const key of known) if (data[key] !== undefined) check(properties[key] as Schema, data[key], [...path, key], mistakes);
}

/** `services[0].listen.port` */
export function pathText(path: Path): string {
  return path.map((step, index) => (typeof step === 'number' ? `[${step}]` : index === 0 ? step : `.${step}`)).join('');
}

/** A value as an operator typed it, shortened. */
export function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a group of keys';
  return printable(JSON.stringify(value));
}

/** `; did you mean "x"?`, or nothing. */
export function suggestion(seen: string, known: readonly string[]): string {
  const nearest = nearestName(seen, known);
  return nearest === undefined ? '' : `; did you mean "${nearest}"?`;
}

const typeNames: Record<string, string> = {
  string: 'a text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a group of keys',
};
