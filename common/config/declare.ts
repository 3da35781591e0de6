/**
 * How options are declared: the functions of typebox that the rooms' `config.ts` use, with typebox's types, making nothing but the JSON Schema
 * that schema-check.ts reads. The library brings the types of TypeScript only: its 373 modules cost each start of a program 0.1 s.
 */
import type { Type as TypeBox } from 'typebox';

type Used = 'Array' | 'Boolean' | 'Enum' | 'Integer' | 'Literal' | 'Number' | 'Object' | 'Optional' | 'String' | 'Unknown';
type Options = Readonly<Record<string, unknown>>;

/** Schemas of keys that may be missing. */
const optional = new WeakSet<object>();

function optionalOf(schema: object): object {
  // A copy: the same schema may be declared elsewhere as one that must be there.
  const copy = { ...schema };
  optional.add(copy);
  return copy;
}

function objectOf(properties: Readonly<Record<string, object>>, options?: Options): object {
  const required = Object.entries(properties).flatMap(([key, schema]) => (optional.has(schema) ? [] : [key]));
  return { type: 'object', ...(required.length > 0 ? { required } : {}), properties, ...options };
}

/** Functions that declare options, as in typebox. */
export const Type = {
  Array: (items: object, options?: Options) => ({ type: 'array', items, ...options }),
  Boolean: (options?: Options) => ({ type: 'boolean', ...options }),
  Enum: (values: readonly string[], options?: Options) => ({ enum: values, ...options }),
  Integer: (options?: Options) => ({ type: 'integer', ...options }),
  Literal: (value: string, options?: Options) => ({ type: 'string', const: value, ...options }),
  Number: (options?: Options) => ({ type: 'number', ...options }),
  Object: objectOf,
  Optional: optionalOf,
  String: (options?: Options) => ({ type: 'string', ...options }),
  Unknown: (options?: Options) => ({ ...options }),
} as unknown as Pick<typeof TypeBox, Used>;
