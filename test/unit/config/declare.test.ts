import { Ajv } from 'ajv';
import { Type as TypeBox } from 'typebox';
import { describe, expect, it } from 'vitest';
import { Type } from '#common/config/declare.ts';
import { NodeFile } from '#common/config/node-file.ts';
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
});
