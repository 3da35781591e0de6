/**
 * Data against a schema: every mistake at once, each in words an operator can act on.
 *
 * ajv finds the mistakes; its own messages speak of schemas and are not shown. Defaults are filled in on the way, in place.
 */
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
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

// An enum of literals and not a union: a union makes ajv report one mistake for each branch.
// The schemas are our own, and a test holds each against the rules for schemas; at a start that would take longer than all the rest of it.
const ajv = new Ajv({ allErrors: true, useDefaults: true, verbose: true, strict: false, meta: false, validateSchema: false });
const compiled = new WeakMap<object, ValidateFunction>();

/** Checks `data` and fills in its defaults. `prefix` goes before each path. */
export function checkAgainst(schema: TSchema, data: unknown, prefix: Path = []): Mistake[] {
  let validate = compiled.get(schema);
  if (validate === undefined) {
    validate = ajv.compile(schema);
    compiled.set(schema, validate);
  }
  if (validate(data)) return [];
  return (validate.errors ?? []).map((error) => mistakeOf(error, prefix));
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

function mistakeOf(error: ErrorObject, prefix: Path): Mistake {
  const path = [...prefix, ...pointerSteps(error.instancePath)];
  const parameters = error.params as Record<string, unknown>;
  const parent = error.parentSchema as Record<string, unknown> | undefined;
  const here = (message: string): Mistake => ({ path, atKey: false, message });
  switch (error.keyword) {
    case 'additionalProperties': {
      const key = String(parameters.additionalProperty);
      const known = Object.keys((parent?.properties as object | undefined) ?? {});
      return { path: [...path, key], atKey: true, message: `unknown key${suggestion(key, known) || `; known here: ${known.join(', ')}`}` };
    }
    case 'required': {
      const key = String(parameters.missingProperty);
      const description = (parent?.properties as Record<string, { description?: string }> | undefined)?.[key]?.description;
      return {
        path: [...path, key],
        atKey: true,
        message: `is missing${description === undefined ? '' : `: ${description.replace(/\.$/, '')}`}`,
      };
    }
    case 'enum': {
      const allowed = (parameters.allowedValues as unknown[]).map(String);
      return here(`${shown(error.data)} is not one of ${allowed.join('|')}${suggestion(String(error.data), allowed)}`);
    }
    case 'const':
      return here(`${shown(error.data)} is not ${JSON.stringify(parameters.allowedValue)}`);
    case 'type': {
      const isBare = parameters.type === 'string' && (typeof error.data === 'number' || typeof error.data === 'boolean');
      const quoted = isBare ? `; write it in quotes: "${String(error.data)}"` : '';
      return here(`${shown(error.data)} is not ${typeNames[String(parameters.type)] ?? String(parameters.type)}${quoted}`);
    }
    case 'pattern': {
      const wanted =
        typeof parent?.description === 'string' ? parent.description.replace(/\.$/, '') : `a text like ${String(parameters.pattern)}`;
      return here(`${shown(error.data)} cannot be used; expected is: ${wanted}`);
    }
    case 'minimum':
      return here(`${shown(error.data)} is too small; at least ${String(parameters.limit)} is expected`);
    case 'maximum':
      return here(`${shown(error.data)} is too large; at most ${String(parameters.limit)} is expected`);
    case 'minItems':
      return here(`the list is too short; at least ${String(parameters.limit)} is expected`);
    default:
      return here(`${shown(error.data)} ${error.message ?? 'is not allowed'}`);
  }
}

function pointerSteps(pointer: string): (string | number)[] {
  return pointer
    .split('/')
    .slice(1)
    .map((step) => step.replace(/~1/g, '/').replace(/~0/g, '~'))
    .map((step) => (/^\d+$/.test(step) ? Number(step) : step));
}
