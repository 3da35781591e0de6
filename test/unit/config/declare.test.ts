import { Ajv } from 'ajv';
import { Type as TypeBox } from 'typebox';
import { describe, expect, it } from 'vitest';
import { Type } from '#common/config/declare.ts';
import { NodeFile } from '#common/config/node-file.ts';
import { checkAgainst, type Mistake } from '#common/config/schema-check.ts';
import { serviceSchemas } from '#operate/config/service-schemas.ts';

describe('declared options', () => {
  it.each(Object.entries({ ...serviceSchemas, 'node file': NodeFile }))('are a JSON Schema: %s', (_, schema) => {
    const ajv = new Ajv({ strict: false });
    expect(ajv.validateSchema(JSON.parse(JSON.stringify(schema))), ajv.errorsText()).toBe(true);
  });

  it('are what typebox makes of the same declaration', () => {
    const declared = (type: Pick<typeof TypeBox, keyof typeof Type>): unknown => {
      const shared = type.Object({ port: type.Integer({ minimum: 0 }) }, { additionalProperties: false });
      return type.Object(
        {
          role: type.Literal('x'),
          name: type.String({ description: 'd', pattern: '^a' }),
          must: shared,
          may: type.Optional(shared),
          list: type.Array(type.Number(), { minItems: 1 }),
          level: type.Optional(type.Enum(['low', 'high'], { default: 'low' })),
          on: type.Boolean({ default: false }),
          any: type.Unknown(),
          none: type.Object({ only: type.Optional(type.Boolean()) }),
        },
        { description: 'all' },
      );
    };
    expect(JSON.parse(JSON.stringify(declared(Type)))).toEqual(JSON.parse(JSON.stringify(declared(TypeBox))));
  });

  // What nobody reads in a declaration would be silently allowed.
  it.each(Object.entries({ ...serviceSchemas, 'node file': NodeFile }))(
    'use what the check knows, and are checked alike by ajv: %s',
    (_, schema) => {
      const whole = wholeOf(schema as unknown as Declared);
      expect(checkAgainst(schema, structuredClone(whole))).toEqual([]);
      const validate = new Ajv({ allErrors: true, useDefaults: true, verbose: true, strict: false }).compile(schema);
      for (const data of variantsOf(whole)) {
        const [ours, theirs] = [structuredClone(data), structuredClone(data)];
        const mistakes = checkAgainst(schema, ours);
        validate(theirs);
        const places = (validate.errors ?? []).map(({ instancePath, keyword, params }) => {
          const key =
            keyword === 'required' ? params.missingProperty : keyword === 'additionalProperties' ? params.additionalProperty : undefined;
          return `${instancePath}${key === undefined ? '' : `/${key}`} ${key !== undefined}`;
        });
        expect(mistakes.map(placeOf).sort(), JSON.stringify(data)).toEqual(places.sort());
        expect(ours).toEqual(theirs);
      }
    },
  );
});

interface Declared {
  readonly [keyword: string]: unknown;
  readonly type?: string;
  readonly items?: Declared;
  readonly properties?: Readonly<Record<string, Declared>>;
}
const known = new Set([
  ...['type', 'const', 'enum', 'minimum', 'maximum', 'minLength', 'maxLength', 'pattern', 'minItems', 'maxItems', 'items', 'required'],
  ...['properties', 'additionalProperties', 'default', 'description', 'otherwise'],
]);

function placeOf({ path, atKey }: Mistake): string {
  return `${path.map((step) => `/${step}`).join('')} ${atKey}`;
}

/** Data with everything that is declared, all of it right. */
function wholeOf(schema: Declared): unknown {
  for (const keyword of Object.keys(schema)) if (!known.has(keyword)) throw new Error(`the check does not know "${keyword}"`);
  if (schema.const !== undefined) return schema.const;
  if (Array.isArray(schema.enum)) return schema.enum[0];
  switch (schema.type) {
    case 'object':
      return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([key, property]) => [key, wholeOf(property)]));
    case 'array':
      return [wholeOf(schema.items ?? {})];
    case 'integer':
    case 'number':
      return schema.minimum ?? 0;
    case 'boolean':
      return true;
    default:
      return schema.default ?? texts.find((text) => new RegExp(String(schema.pattern ?? '')).test(text));
  }
}
const texts = ['x', 'all', '1', 'a@b.example', 'x:1', '10.0.0.0/8', '$local@$domain'];

/** The same with one thing left out, of another kind, too small or too large, or too much, at every place. */
function* variantsOf(data: unknown): Generator<unknown> {
  if (typeof data === 'object' && data !== null) {
    for (const key of Object.keys(data)) {
      const of = (value: unknown): unknown => {
        const copy = structuredClone(data) as Record<string, unknown>;
        if (value === undefined) delete copy[key];
        else copy[key] = value;
        return copy;
      };
      if (!Array.isArray(data)) yield of(undefined);
      for (const variant of variantsOf((data as Record<string, unknown>)[key])) yield of(variant);
    }
    if (Array.isArray(data)) yield* [[], Array.from({ length: 401 }, () => data[0])];
    else yield { ...data, surplus: 1 };
  }
  yield* [null, '', 'text', -1, 1.5, 1e12, true, {}, []];
}
